// libsop in a C++ program: lines of text from stdin become the items of a store, by their number; all in
// one transaction, tried again when another's commit is in its way. Then they are read back.
//
//     lines STORE DIR... <TEXT
#include <iostream>
#include <string>
#include <vector>

#include "core/sop.h"

static int add(sop_txn *t, const char *path, const std::vector<std::string> &lines, sop_err *e)
{
	sop_store_opts o = {};
	uint64_t store = 0;

	o.key_type = SOP_KEY_INT64;
	o.balance = true;
	int rc = sop_store_at(t, path, SOP_STORE_CREATE, &o, &store, e);
	for (size_t i = 0; !rc && i < lines.size(); i++) {
		sop_key key = sop_key_int(static_cast<int64_t>(i));

		rc = sop_kv_upsert(t, store, &key, lines[i].data(), lines[i].size(), e);
	}
	return rc;
}

struct work {
	const char *path;
	std::vector<std::string> lines;
};

static int print(void *, const sop_kv_item *item)
{
	std::cout << item->key.i << ": "
		  << std::string(static_cast<const char *>(item->val), item->len) << '\n';
	return 0;
}

int main(int argc, char **argv)
{
	sop_volume *v = nullptr;
	sop_err e = {};
	work w = {};

	if (argc < 3) {
		std::cerr << "usage: lines STORE DIR...\n";
		return 2;
	}
	w.path = argv[1];
	for (std::string line; std::getline(std::cin, line);)
		w.lines.push_back(line);
	int rc = sop_volume_open(&v, argv + 2, static_cast<size_t>(argc - 2), nullptr, &e);
	if (!rc)
		rc = sop_txn_run(v, nullptr, 0, SOP_COMMIT_DURABLE,
			[](sop_txn *t, void *arg, sop_err *why) {
				const work *mine = static_cast<work *>(arg);

				return add(t, mine->path, mine->lines, why);
			},
			&w, &e);
	if (!rc) {
		uint64_t store = 0;

		rc = sop_store_at(sop_volume_latest(v), w.path, 0, nullptr, &store, &e);
		if (!rc)
			rc = sop_kv_page(sop_volume_latest(v), store, 0, 1000, SOP_PAGE_DESCENDING | SOP_PAGE_VALUES, print,
				nullptr, &e);
	}
	if (rc < 0)
		std::cerr << "lines: " << e.text << '\n';
	if (v && sop_volume_close(v, &e)) {
		std::cerr << "lines: " << e.text << '\n';
		rc = -1;
	}
	return rc < 0;
}
