#include "ctl/term.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "base/str.h"

/* Alternate screen, no cursor, no wrapping; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static struct termios before;
static bool entered;

bool term_is_there(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

static void put(const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(STDOUT_FILENO, p, n);

        if (done < 0 && errno == EAGAIN) {
            struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};

            poll(&fd, 1, 1000);
            continue;
        }
        if (done < 0 && errno != EINTR)
            return;
        if (done > 0) {
            p += done;
            n -= (size_t)done;
        }
    }
}

void term_leave(void)
{
    if (!entered)
        return;
    entered = false;
    put(LEAVE, strlen(LEAVE));
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void term_enter(void)
{
    static bool at_exit;
    struct termios raw;

    if (entered || tcgetattr(STDIN_FILENO, &before) < 0)
        return;
    if (!at_exit)
        atexit(term_leave);
    at_exit = true;
    raw = before;
    raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    entered = true;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    put(ENTER, strlen(ENTER));
}

void term_size(size_t *lines, size_t *columns)
{
    struct winsize w = {0};

    ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
    *lines = w.ws_row ? w.ws_row : 24;
    *columns = w.ws_col ? w.ws_col : 80;
}

void term_draw(const struct page *p, size_t lines)
{
    struct str out = STR_INIT;
    size_t i;

    str_adds(&out, "\033[H");
    for (i = 0; i < lines && i < page_lines(p); i++)
        str_addf(&out, "%s%s\033[K", i ? "\r\n" : "", page_text(p, i));
    str_adds(&out, "\033[J");
    put(out.p, out.n);
    str_fini(&out);
}

/* The length of the escape sequence at `p`: ESC [ ... letter, or ESC and one more. */
static size_t sequence(const char *p, size_t n)
{
    size_t i = 2;

    if (n < 2 || p[1] != '[')
        return TR_MIN(n, 2);
    while (i < n && (p[i] < '@' || p[i] > '~'))
        i++;
    return TR_MIN(i + 1, n);
}

size_t term_keys(char keys[TERM_KEYS])
{
    char raw[TERM_KEYS];
    ssize_t n = read(STDIN_FILENO, raw, sizeof(raw));
    size_t i = 0, found = 0;

    while (n > 0 && i < (size_t)n) {
        if (raw[i] == '\x1b')
            i += sequence(raw + i, (size_t)n - i);
        else
            keys[found++] = raw[i++];
    }
    return found;
}
