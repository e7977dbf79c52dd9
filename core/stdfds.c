#include "core/stdfds.h"

#include <fcntl.h>
#include <unistd.h>

void sop_stdfds_take(void)
{
	/* The lowest free number comes next. O_PATH: nothing can be read or written by it. */
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/", O_PATH | O_CLOEXEC);
}
