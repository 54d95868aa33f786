#include "ctl/text.h"

#include <langinfo.h>
#include <locale.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <wchar.h>
#include "base/attrs.h"
#include "base/utf8.h"

/* Whether wcwidth knows more than ASCII. */
static bool measures;

bool text_init(void)
{
    bool utf8 = setlocale(LC_CTYPE, "") && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;

    measures = utf8 || setlocale(LC_CTYPE, "C.UTF-8") || setlocale(LC_CTYPE, "C.utf8");
    return utf8;
}

/* The character at `p`, whose sequence is `n` bytes long. */
static uint32_t decode(const char *p, size_t n)
{
    static const unsigned char lead[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = (unsigned char)p[0] & lead[n];
    size_t i;

    for (i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)p[i] & 0x3f);
    return c;
}

/* Marks that turn the direction of writing, so that a name reads as another, or are not seen, so
 * that two names look the same (Unicode: Cf, Zl, Zp and what is ignorable by default). */
static bool is_hidden_mark(uint32_t c)
{
    static const struct {
        uint32_t from, to;
    } marks[] = {{0xad, 0xad},       {0x34f, 0x34f},     {0x600, 0x605},     {0x61c, 0x61c},
                 {0x6dd, 0x6dd},     {0x70f, 0x70f},     {0x8e2, 0x8e2},     {0x115f, 0x1160},
                 {0x17b4, 0x17b5},   {0x180b, 0x180f},   {0x200b, 0x200f},   {0x2028, 0x202e},
                 {0x2060, 0x206f},   {0x3164, 0x3164},   {0xe000, 0xf8ff},   {0xfe00, 0xfe0f},
                 {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffb},   {0x110bd, 0x110bd},
                 {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0x10ffff}};
    size_t i;

    for (i = 0; i < ARRAY_LEN(marks) && c >= marks[i].from; i++) {
        if (c <= marks[i].to)
            return true;
    }
    return false;
}

/* Columns of a character; -1: it is not to be shown. */
static int columns_of(uint32_t c)
{
    if (c < ' ' || (c >= 0x7f && c < 0xa0) || is_hidden_mark(c))
        return -1;
    if (c < 0x7f || !measures)
        return 1;
    return wcwidth((wchar_t)c);
}

static void add_harmless(struct str *out, const char *p, size_t left, const char *keep)
{
    while (left > 0) {
        size_t n = utf8_length(p, left);
        bool good = n && (columns_of(decode(p, n)) >= 0 || (keep && n == 1 && strchr(keep, *p)));

        if (good)
            str_add(out, p, n);
        else
            str_addc(out, '?');
        n = TR_MAX(n, 1);
        p += n;
        left -= n;
    }
}

void text_add_harmless(struct str *out, const char *text, const char *keep)
{
    add_harmless(out, text, strlen(text), keep);
}

/* The length of "ESC [ ... m" at the beginning of `p`; 0: there is none. */
static size_t colouring(const char *p)
{
    size_t n = 2;

    if (p[0] != '\x1b' || p[1] != '[')
        return 0;
    n += strspn(p + n, "0123456789;:");
    return p[n] == 'm' || p[n] == 'K' ? n + 1 : 0;
}

void text_add_log(struct str *out, const char *text)
{
    while (*text) {
        size_t n = colouring(text), plain = 0;

        text += n;
        if (n)
            continue;
        while (text[plain] && (plain == 0 || text[plain] != '\x1b'))
            plain++;
        add_harmless(out, text, plain, "\t\n");
        text += plain;
    }
}

size_t text_fit(const char *text, size_t columns, size_t *used)
{
    size_t left = strlen(text), at = 0, w = 0;

    while (at < left) {
        size_t n = utf8_length(text + at, left - at);
        int one = n ? columns_of(decode(text + at, n)) : 1;

        one = TR_MAX(one, 0);
        if (w + (size_t)one > columns)
            break;
        w += (size_t)one;
        at += TR_MAX(n, 1);
    }
    if (used)
        *used = w;
    return at;
}

size_t text_width(const char *text)
{
    size_t w;

    text_fit(text, SIZE_MAX, &w);
    return w;
}

/* The end of `text` that fits into so many columns. */
static const char *tail(const char *text, size_t columns)
{
    size_t all = text_width(text);

    while (*text && all > columns) {
        char one[5] = "";
        size_t n = utf8_length(text, strlen(text));

        memcpy(one, text, TR_MAX(n, 1));
        all -= text_width(one);
        text += TR_MAX(n, 1);
    }
    return text;
}

void text_add_cut(struct str *out, const char *text, size_t columns, enum text_cut cut,
                  const char *dots)
{
    size_t gap = text_width(dots), room, head;

    if (text_width(text) <= columns) {
        str_adds(out, text);
        return;
    }
    if (columns <= gap) {
        str_add(out, dots, text_fit(dots, columns, NULL));
        return;
    }
    room = columns - gap;
    head = cut == TEXT_CUT_END ? room : room / 3; /* names differ at their ends */
    str_add(out, text, text_fit(text, head, NULL));
    str_adds(out, dots);
    if (cut == TEXT_CUT_MIDDLE)
        str_adds(out, tail(text, room - head));
}

bool text_has(const char *text, const char *part)
{
    return strcasestr(text, part) != NULL;
}
