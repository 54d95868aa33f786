/*
 * Options as rows. A program describes each option once: its path, its type, its default as text,
 * its limits, the field it goes to and a sentence about it. The loader, the dump, the comparison at
 * a reload and the reference in the manual all work from the rows; none of them knows an option
 * by name.
 *
 *     struct settings { char *directory; uint64_t limit; };
 *
 *     static const struct conf_row rows[] = {
 *         CONF_ROW(PATH, struct settings, directory, "spool.directory", .deflt = "/var/lib/x",
 *                  .text = "Where records wait."),
 *         CONF_ROW(SIZE, struct settings, limit, "spool.limit", .deflt = "10GiB", .min = 1 << 20,
 *                  .max = INT64_MAX, .reloadable = true, .text = "How large it may grow."),
 *     };
 *
 * CONF_ROW does not compile if the field's C type is not the one that goes with the row's type.
 * Rows that share the first parts of their paths stand together.
 */
#ifndef TR_CONF_ROWS_H
#define TR_CONF_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

enum conf_type {
    CONF_STRING,   /* char *: text without control characters; NULL if not given */
    CONF_PATH,     /* char *: absolute; relative ones start at the directory of their file, and
                    * "credential:NAME" is $CREDENTIALS_DIRECTORY/NAME (systemd.exec(5)) */
    CONF_BOOL,     /* bool: true or false */
    CONF_INT,      /* int64_t */
    CONF_SIZE,     /* uint64_t, bytes: 512B, 64KiB, 32MiB, 10GiB, 1TiB */
    CONF_DURATION, /* int64_t, milliseconds: 200ms, 10s, 5m, 48h, 7d */
    CONF_ENUM,     /* an enum (or int): one of the choices; has a default or is required */
    CONF_ADDRESS,  /* char *: literal address and port, 0.0.0.0:8443 or [::]:80 */
    CONF_URL,      /* char *: http or https, no credentials, query or fragment */
    CONF_LIST,     /* struct conf_list: texts */
};

/* What the program does at a path. */
enum conf_use {
    CONF_USE_READ,      /* a file that is read, and read again at a reload */
    CONF_USE_APPEND,    /* a file that is made if it is missing, and written at its end */
    CONF_USE_DIRECTORY, /* a directory of its own: everything in it */
    CONF_USE_SOCKET,    /* the name of a socket that it makes and takes away */
};

struct conf_list {
    char **items;
    size_t n;
};

struct conf_choice {
    const char *name; /* NULL ends the choices */
    int value;
};

struct conf_row {
    const char *path; /* "spool.limit"; in a section of names relative to the item: "address" */
    enum conf_type type;
    size_t offset;
    const char *deflt;    /* as it would stand in a file; NULL: zero, NULL or an empty list */
    int64_t min, max;     /* INT, SIZE (bytes), DURATION (ms); both 0: any that is not negative */
    const struct conf_choice *choices; /* ENUM */
    /* STRING, and each element of a LIST: may refuse a value that has the right type. The text it
     * gives is shown after the value: "use ...". */
    int (*check)(const char *value, struct err *e);
    enum conf_use use;  /* PATH, LIST of paths */
    bool required;      /* must be given; then there is no default */
    bool reloadable;    /* a change takes effect without a restart */
    bool paths;         /* LIST: its elements are paths, as CONF_PATH reads them */
    bool name_is_deflt; /* in a section: the item's name is the default */
    const char *text;   /* one sentence for the manual */
    const char *unit;   /* INT, for the manual: "lines" */
    const char *unset;  /* for the manual, without a default: what holds then; NULL: nothing */
};

/* Named items of one shape: `listen: { upstream: { address: ... }, admin: { ... } }`. The items
 * go to an array (pointer and count in the caller's struct), in the order of the files. */
struct conf_section {
    const char *path;
    const struct conf_row *rows;
    size_t n_rows;
    size_t item_size;
    size_t name_offset;  /* char * in the item: its name */
    size_t items_offset; /* pointer to the first item, in the caller's struct */
    size_t count_offset; /* size_t, in the caller's struct */
    size_t max;          /* of items; a configuration with more is refused */
    bool reloadable;     /* items may come and go without a restart */
    const char *text;
};

struct conf_check;

/* Everything there is to say in a file. */
struct conf_spec {
    const struct conf_row *rows;
    size_t n_rows;
    const struct conf_section *sections;
    size_t n_sections;
    size_t size; /* of the caller's struct */
    /* Where in it a struct conf_list is (not at its very beginning) that takes the absolute paths
     * of the files that were read; 0: nowhere. */
    size_t files_offset;
    /* Called when every value is good by itself: fills what depends on other options, and reports
     * with conf_complain what does not fit together. May be NULL. */
    void (*check)(void *config, struct conf_check *check);
};

/* What type the field of a row has. */
/* NOLINTBEGIN(bugprone-macro-parentheses): rows of a _Generic are no expressions */
#define CONF_FIELD_STRING   char **: 1
#define CONF_FIELD_PATH     char **: 1
#define CONF_FIELD_BOOL     bool *: 1
#define CONF_FIELD_INT      int64_t *: 1
#define CONF_FIELD_SIZE     uint64_t *: 1
#define CONF_FIELD_DURATION int64_t *: 1
#define CONF_FIELD_ENUM     int *: 1, unsigned *: 1
#define CONF_FIELD_ADDRESS  char **: 1
#define CONF_FIELD_URL      char **: 1
#define CONF_FIELD_LIST     struct conf_list *: 1
/* NOLINTEND(bugprone-macro-parentheses) */

/* An offset that exists only if the field has one of the types. */
#define CONF_OFFSET(struct_, field, ...)                                                           \
    (offsetof(struct_, field) +                                                                    \
     0 * sizeof(char[_Generic(&((struct_ *)NULL)->field, __VA_ARGS__)]))

#define CONF_ROW(type_, struct_, field, path_, ...)                                                \
    {                                                                                              \
        .path = (path_), .type = CONF_##type_,                                                     \
        .offset = CONF_OFFSET(struct_, field, CONF_FIELD_##type_), __VA_ARGS__                     \
    }

#define CONF_SECTION(struct_, items_, count_, item_struct, name_, path_, rows_, ...)               \
    {                                                                                              \
        .path = (path_), .rows = (rows_), .n_rows = ARRAY_LEN(rows_),                              \
        .item_size = sizeof(item_struct),                                                          \
        .name_offset = CONF_OFFSET(item_struct, name_, char **: 1),                                \
        .items_offset = CONF_OFFSET(struct_, items_, item_struct **: 1),                           \
        .count_offset = CONF_OFFSET(struct_, count_, size_t *: 1), __VA_ARGS__                     \
    }

#endif
