// The public header in a C++ program.
#include "core/sop.h"

int main()
{
	sop_key one = sop_key_int(1);
	sop_store_opts o = {};
	sop_open_opts open_opts = {};
	sop_err e = {};
	sop_volume *v = nullptr;
	const char *none[] = {"/nonexistent"};

	o.key_type = SOP_KEY_INT64;
	// Linked, called, and refused as it should be.
	return one.i == 1 && o.key_type == SOP_KEY_INT64 && sop_volume_open(&v, none, 1, &open_opts, &e) < 0 && !v ? 0 : 1;
}
