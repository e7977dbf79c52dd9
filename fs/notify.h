/* Telling the kernel that something it caches is no more so.
 *
 * An invalidation of an entry waits for the directory's lock, which another request may hold until
 * a worker has answered it. Were all workers waiting in notifications, nobody would. So at most one
 * worker notifies on its own; the others hand their notes, and with them what is to be done
 * afterwards (the reply), to a thread of its own. No lock of ours is held during any of it. */
#ifndef SOPFS_NOTIFY_H
#define SOPFS_NOTIFY_H

#include "fs/inode.h"

struct sopfs_note;

struct sopfs_notes {
	struct sopfs_note *first;
};

int sopfs_notifier_start(struct sopfs *f, struct sop_err *e);
/* What was handed over is finished. */
void sopfs_notifier_stop(struct sopfs *f);

/* sopfs.lock held. All names of the item we know that the kernel may have looked up. */
void sopfs_note_names(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_item *item);
void sopfs_note_name(
	struct sopfs *f, struct sopfs_notes *n, uint64_t store, const char *name, size_t len);
/* By the directory's nodeid, which is no item's of the table. No lock needed. */
void sopfs_note_entry(struct sopfs_notes *n, uint64_t nodeid, const char *name);
void sopfs_note_attr(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_view *v);
/* Of all views of the item but one. */
void sopfs_note_attrs(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_item *item,
	const struct sopfs_view *but);
/* Before the notes that say that the committed nodeid has become something else: until they have
 * been sent the kernel may show by it what was, and whoever commits meanwhile tells it too. */
void sopfs_note_untold(struct sopfs *f, struct sopfs_notes *n, struct sopfs_view *v);
/* What its pages show, and attributes. sopfs_note_paged() says before each read or write by pages
 * that there may be some from now on. Where no page has ever been, attributes are all there is to
 * forget, and that waits for nobody. A read that has not marked the view yet finds the change for
 * which this is asked. sopfs.lock held: of a shared volume the item counts it until it is sent. */
void sopfs_note_data(struct sopfs *f, struct sopfs_notes *n, const struct sopfs_view *v);
void sopfs_note_paged(struct sopfs_view *v);
/* The same, and where the file ends, and the byte before: the size in an answer that any note has
 * overtaken is thrown away. Pages are dropped before, lest others find them longer, with nothing
 * there, and after: a write may have overtaken that byte. */
void sopfs_note_end(
	struct sopfs *f, struct sopfs_notes *n, struct sopfs_view *v, uint64_t end, char last);
bool sopfs_view_paged(const struct sopfs_view *v);

/* The kernel has been told a name more. Once it knows more files and directories than known_max,
 * each of which costs memory here, it is asked to forget some that nobody uses. Only after the
 * request has been answered. */
void sopfs_prune(struct sopfs *f);

/* Send them, then call done (may be NULL) from this or another thread. Not from a handler that must
 * not wait for the kernel (LOOKUP, CREATE, name operations): those use _later. */
void sopfs_notify(struct sopfs *f, struct sopfs_notes *n, void (*done)(void *arg), void *arg);
/* From a thread that answers no requests: sent when it returns. */
void sopfs_notify_here(struct sopfs *f, struct sopfs_notes *n);
void sopfs_notify_later(struct sopfs *f, struct sopfs_notes *n);
/* As sopfs_notify, and done is called after all that was handed over until now has been sent. */
void sopfs_notify_in_order(
	struct sopfs *f, struct sopfs_notes *n, void (*done)(void *arg), void *arg);
/* For a look, while whose caller the kernel holds no page: the notes go out as by _later, and done
 * is called when the pages are dropped, and those for which _later has been called before. */
void sopfs_notify_dropped(
	struct sopfs *f, struct sopfs_notes *n, void (*done)(void *arg), void *arg);
/* For a write, while whose caller the kernel holds the file's lock and may hold pages of the nodeid
 * written by: the notes go out as by _later, but done is called when the pages of other nodeids are
 * dropped, from a thread that waits for no directory. False: none is to be dropped, or another
 * write to the item waits here already, and the caller goes on as ever: of two that wait each might
 * hold the page that the other wants dropped. done sets item->telling to false before it answers.
 * file_end: the file ends there now, with the byte last; 0: it ends elsewhere. */
bool sopfs_notify_pages(struct sopfs *f, struct sopfs_notes *n, struct sopfs_item *item,
	uint64_t file_end, char last, void (*done)(void *arg), void *arg);

#endif
