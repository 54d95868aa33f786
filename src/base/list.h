/*
 * A doubly linked list through a member of the objects themselves. A link that is in no list
 * points at itself, so removing twice is harmless.
 */
#ifndef TR_BASE_LIST_H
#define TR_BASE_LIST_H

#include <stdbool.h>
#include "base/attrs.h"

struct list {
    struct list *next;
    struct list *prev;
};

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}

static inline void list_insert_before(struct list *at, struct list *n)
{
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}

static inline void list_append(struct list *head, struct list *n)
{
    list_insert_before(head, n);
}

static inline void list_prepend(struct list *head, struct list *n)
{
    list_insert_before(head->next, n);
}

static inline void list_remove(struct list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

/* Move everything in `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_move_all(struct list *to, struct list *from)
{
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#define list_entry(link, type, member) container_of(link, type, member)

/* The first object, or NULL. */
#define list_first(head, type, member)                                                             \
    (list_empty(head) ? NULL : list_entry((head)->next, type, member))

#define list_last(head, type, member)                                                              \
    (list_empty(head) ? NULL : list_entry((head)->prev, type, member))

/* The object after `obj`, or NULL at the end. */
#define list_next(head, obj, type, member)                                                         \
    ((obj)->member.next == (head) ? NULL : list_entry((obj)->member.next, type, member))

/* Walk links; `tmp` makes it safe to remove the one at hand. */
#define list_each(it, tmp, head)                                                                   \
    for ((it) = (head)->next, (tmp) = (it)->next; (it) != (head); (it) = (tmp), (tmp) = (it)->next)

#endif
