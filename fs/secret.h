/* The password at the Redis server, where no option says it: it must not stand in fstab, on a
 * command line or in a mount's options. */
#ifndef SOPFS_SECRET_H
#define SOPFS_SECRET_H

#include "fs/options.h"

/* The file redis_password of $CREDENTIALS_DIRECTORY (systemd's LoadCredential=), or else what
 * $SOPFS_REDIS_PASSWORD says, which is wiped from the environment: into o->volume, if there is
 * redis= and no redis_password_file=. Before there are threads or other processes. */
int sopfs_secret_find(struct sopfs_options *o, struct sop_err *e);

#endif
