/* What users write: -o lists, sources, sizes, times, settings. */
#include "fs/options.h"
#include "core/human.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = (char *)fuzz_block(data, size, size + 1), *value;
	struct sopfs_options o;
	struct sop_err e = {0};
	uint64_t bytes;
	unsigned ms;

	(void)sop_human_parse_size(&bytes, text);
	(void)sop_human_parse_time(&ms, text);
	sopfs_options_init(&o);
	(void)sopfs_options_list(&o, text, &e);
	value = strchr(text, '=');
	if (value) {
		*value++ = '\0';
		(void)sopfs_options_set(&o, text, value, &e);
	}
	/* No patterns: they would look at the file system. */
	if (!strpbrk(text, "*?[/"))
		(void)sopfs_options_source(&o, text, &e);
	value = sopfs_options_dump(&o);
	free(value);
	sopfs_options_release(&o);
	free(text);
	return 0;
}
