#include "rt/fault.h"

#ifdef ENABLE_FAULT_POINTS

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/xmem.h"

enum { FAULT_MAX = 8 };

struct fault {
    char name[48];
    unsigned long hit;
    unsigned long seen;
    char action[8];
};

static struct fault faults[FAULT_MAX];
static size_t n_faults;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void load(void)
{
    const char *env = getenv("TAILRACE_FAULT");
    char *copy, *part, *save = NULL;

    if (!env)
        return;
    copy = xstrdup(env);
    for (part = strtok_r(copy, ",", &save); part && n_faults < FAULT_MAX;
         part = strtok_r(NULL, ",", &save)) {
        struct fault *f = &faults[n_faults];

        /* NOLINTNEXTLINE(cert-err34-c): what tests give; a number out of range is never hit */
        if (sscanf(part, "%47[^:]:%lu:%7s", f->name, &f->hit, f->action) == 3)
            n_faults++;
    }
    xfree(copy);
}

static bool is_there(const char *path)
{
    return path && access(path, F_OK) == 0;
}

bool fault_point(const char *name)
{
    bool fail = false;
    size_t i;

    pthread_once(&once, load);
    if (n_faults == 0)
        return false;
    pthread_mutex_lock(&lock);
    for (i = 0; i < n_faults; i++) {
        struct fault *f = &faults[i];

        if (strcmp(f->name, name) != 0)
            continue;
        f->seen++;
        if (strcmp(f->action, "kill") == 0 && f->seen == f->hit)
            kill(getpid(), SIGKILL);
        if (strcmp(f->action, "fail") == 0 && f->seen >= f->hit)
            fail = true;
        if (strcmp(f->action, "once") == 0 && f->seen == f->hit)
            fail = true;
        if (strcmp(f->action, "while") == 0 && is_there(getenv("TAILRACE_FAULT_WHILE")))
            fail = true;
    }
    pthread_mutex_unlock(&lock);
    return fail;
}

#endif
