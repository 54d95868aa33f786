/*
 * Runs a fuzz target over files that were kept, without a fuzzer: for make check, and to look into
 * one finding. Arguments are files and directories.
 */
#include "fuzz/target.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static unsigned long n_files;

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t n = 0;
    struct stat st;
    uint8_t *data;

    if (!f || fstat(fileno(f), &st) != 0) {
        perror(path);
        return -1;
    }
    /* A block of just that size: a read beyond it is seen by a sanitizer. */
    data = malloc(st.st_size ? (size_t)st.st_size : 1);
    if (data)
        n = fread(data, 1, (size_t)st.st_size, f);
    fclose(f);
    if (!data || n != (size_t)st.st_size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        free(data);
        return -1;
    }
    LLVMFuzzerTestOneInput(data, n);
    free(data);
    n_files++;
    return 0;
}

static int run_directory(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    char name[4096];
    int r = 0;

    if (!d) {
        perror(path);
        return -1;
    }
    while (r == 0 && (entry = readdir(d))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        r = run_file(name);
    }
    closedir(d);
    return r;
}

int main(int argc, char **argv)
{
    int i;

    for (i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) != 0) {
            perror(argv[i]);
            return 99;
        }
        if ((S_ISDIR(st.st_mode) ? run_directory : run_file)(argv[i]) != 0)
            return 99;
    }
    printf("%s: %lu inputs\n", argv[0], n_files);
    return n_files ? 0 : 99;
}
