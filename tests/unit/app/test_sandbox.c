/*
 * What may be reached with a configuration, and that the kernel keeps a process to it. The latter
 * is tried in children, since there is no way back; without Landlock those tests are skipped.
 */
#include "app/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "app/reach.h"

static char top[64]; /* a directory for one test; the current one */

static const char sample[] =
    "harness: { url: http://127.0.0.1:1 }\n"
    "listen: { upstream: { address: 127.0.0.1:1, certificate: ../in/c.pem, "
    "key: ../in/k.pem } }\n"
    "spool: { directory: ../spool }\n"
    "log: { file: ../logs/log }\n"
    "audit: { to: file, file: ../logs/audit }\n";

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(top, sizeof(top), "/tmp/tailrace-sandbox-XXXXXX");
    if (!mkdtemp(top) || chdir(top) < 0 || mkdir("in", 0700) < 0 || mkdir("out", 0700) < 0 ||
        mkdir("spool", 0700) < 0 || mkdir("logs", 0700) < 0 || mkdir("conf", 0700) < 0)
        return -1;
    write_file("in/c.pem", "c");
    write_file("in/k.pem", "k");
    write_file("out/secret", "s");
    write_file("conf/tailrace.yaml", sample);
    return 0;
}

static int tear_down(void **state)
{
    char command[96];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", top);
    return chdir("/") < 0 || system(command) != 0 ? -1 : 0;
}

static struct config *load(void)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *c = NULL;

    if (config_load("conf/tailrace.yaml", &c, &errors) < 0)
        fail_msg("%s", errors.lines[0]);
    return c;
}

/* Relative to the test's directory. */
static bool covers(const struct reach *r, const char *name, unsigned how)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", top, name);
    return reach_covers(r, path, how);
}

/* ---- what may be reached ------------------------------------------------------------------ */

static void test_each_use_has_its_rights(void **state)
{
    struct config *c = load();
    struct reach r = REACH_INIT;

    (void)state;
    reach_add(&r, c, true);
    assert_true(covers(&r, "in/c.pem", REACH_READ));
    assert_true(covers(&r, "in/next.pem", REACH_READ)); /* renamed into place */
    assert_false(covers(&r, "in/c.pem", REACH_WRITE));
    assert_false(covers(&r, "in/c.pem", REACH_EXECUTE));
    assert_true(covers(&r, "spool/spool.db", REACH_READ | REACH_WRITE | REACH_SOCKET));
    assert_true(covers(&r, "logs/log", REACH_WRITE));
    assert_false(covers(&r, "logs/log", REACH_EXECUTE));
    assert_true(covers(&r, "conf/tailrace.yaml", REACH_READ));
    assert_false(reach_covers(&r, "/etc/shadow", REACH_READ));
    assert_false(reach_covers(&r, "/root/x", REACH_READ));
    assert_false(reach_covers(&r, "/tmp", REACH_READ));
    assert_false(reach_covers(&r, "/bin/sh", REACH_EXECUTE));
    assert_true(reach_covers(&r, "/dev/null", REACH_READ | REACH_WRITE));
    reach_fini(&r);
    config_free(&c);
}

static void test_a_name_that_only_begins_alike(void **state)
{
    struct reach_place places[] = {{(char *)"/a/b", REACH_READ}, {(char *)"/a", REACH_WRITE}};
    const struct reach r = {places, 2};

    (void)state;
    assert_true(reach_covers(&r, "/a/b", REACH_READ));
    assert_true(reach_covers(&r, "/a/b/c", REACH_READ | REACH_WRITE));
    assert_false(reach_covers(&r, "/a/bc", REACH_READ));
    assert_false(reach_covers(&r, "/ab", REACH_WRITE));
}

/* The link's own directory, and that of what it leads to. */
static void test_links(void **state)
{
    struct reach r = REACH_INIT;
    struct config *c;

    (void)state;
    assert_int_equal(mkdir("live", 0700), 0);
    assert_int_equal(rename("in/c.pem", "live/c1.pem"), 0);
    assert_int_equal(symlink("../live/c1.pem", "in/c.pem"), 0);
    c = load();
    reach_add(&r, c, true);
    assert_true(covers(&r, "live/c2.pem", REACH_READ));
    assert_true(covers(&r, "in/c.pem", REACH_READ));
    assert_false(covers(&r, "live/c2.pem", REACH_WRITE));
    reach_fini(&r);
    config_free(&c);
}

/* Nothing of /tmp is opened for the sake of a file that lies in it. */
static void test_shared_directories(void **state)
{
    char name[96], text[512];
    struct reach r = REACH_INIT;
    struct config *c;

    (void)state;
    snprintf(name, sizeof(name), "%s.pem", top);
    write_file(name, "x");
    snprintf(text, sizeof(text), "%supstream: { ca: %s }\n", sample, name);
    write_file("conf/tailrace.yaml", text);
    c = load();
    reach_add(&r, c, false);
    assert_true(reach_covers(&r, name, REACH_READ));
    assert_false(reach_covers(&r, "/tmp/other.pem", REACH_READ));
    assert_true(reach_covers(&r, "/etc/resolv.conf.new", REACH_READ)); /* who is not root */
    unlink(name);
    reach_fini(&r);
    config_free(&c);
}

static void test_a_configuration_that_does_not_fit(void **state)
{
    struct config *c = load(), *other;
    struct reach r = REACH_INIT;
    struct err e = {0};
    char text[512];

    (void)state;
    reach_add(&r, c, true);
    assert_int_equal(reach_check(&r, c, &e), 0);
    snprintf(text, sizeof(text), "%supstream: { ca: ../out/secret }\n", sample);
    write_file("conf/tailrace.yaml", text);
    other = load();
    assert_int_equal(reach_check(&r, other, &e), -1);
    assert_non_null(strstr(e.text, "upstream.ca: outside of what this process may reach"));
    assert_non_null(strstr(e.text, "/out/secret"));
    config_free(&other);
    snprintf(text, sizeof(text), "%supstream: { ca: ../out/missing }\n", sample);
    write_file("conf/tailrace.yaml", text);
    other = load();
    assert_int_equal(reach_check(&r, other, &e), 0); /* somebody else says what is wrong with it */
    config_free(&other);
    /* A file that may be read is not one that may be written. */
    snprintf(text, sizeof(text), "%.*slog: { file: ../in/log }\n",
             (int)(strstr(sample, "log:") - sample), sample);
    write_file("conf/tailrace.yaml", text);
    other = load();
    assert_int_equal(reach_check(&r, other, &e), -1);
    assert_non_null(strstr(e.text, "log.file: "));
    config_free(&other);
    reach_fini(&r);
    config_free(&c);
}

/* ---- the kernel --------------------------------------------------------------------------- */

static bool kernel_can(void)
{
    return syscall(444, NULL, 0, 1) > 0;
}

static int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    if (fd >= 0)
        close(fd);
    return fd >= 0 ? 0 : errno;
}

static void *open_in_thread(void *path)
{
    return (void *)(intptr_t)try_open(path, O_RDONLY);
}

static int try_in_thread(char *path)
{
    pthread_t t;
    void *why = NULL;

    if (pthread_create(&t, NULL, open_in_thread, path) != 0 || pthread_join(t, &why) != 0)
        return -1;
    return (int)(intptr_t)why;
}

static int try_run(const char *program)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        execl(program, program, (char *)NULL);
        _exit(errno == EACCES ? 113 : 114);
    }
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status);
}

#define EXPECT(x)                                                                                  \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "does not hold: %s\n", #x);                                            \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void enter(void)
{
    struct config *c = load();
    struct err e = {0};

    c->sandbox = CONFIG_SANDBOX_REQUIRED;
    EXPECT(sandbox_become(c, &e) == 0);
    EXPECT(sandbox_enter(c, &e) == 0);
    EXPECT(sandbox_is_tight());
}

static void in_child(void (*body)(void))
{
    pid_t pid;
    int status = 0;

    if (!kernel_can())
        skip();
    pid = fork();
    if (pid == 0) {
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void files_body(void)
{
    enter();
    EXPECT(try_open("in/c.pem", O_RDONLY) == 0);
    EXPECT(try_open("in/c.pem", O_WRONLY) == EACCES);
    EXPECT(try_open("in/new", O_WRONLY | O_CREAT) == EACCES);
    EXPECT(try_open("out/secret", O_RDONLY) == EACCES);
    EXPECT(try_open("/etc/passwd", O_WRONLY | O_APPEND) == EACCES);
    EXPECT(try_in_thread((char *)"out/secret") == EACCES);
    EXPECT(try_in_thread((char *)"in/c.pem") == 0);
    EXPECT(try_open("spool/new", O_RDWR | O_CREAT) == 0);
    EXPECT(rename("spool/new", "spool/other") == 0 && unlink("spool/other") == 0);
    EXPECT(rename("in/c.pem", "spool/c.pem") < 0);
    EXPECT(try_open("logs/log.2", O_WRONLY | O_APPEND | O_CREAT) == 0);
    /* What a name leads to counts, not the name. */
    EXPECT(symlink("../out/secret", "spool/link") < 0);
    EXPECT(link("out/secret", "spool/hard") < 0);
}

static void test_files(void **state)
{
    (void)state;
    in_child(files_body);
}

/* A file of the configuration has become a link to elsewhere, after the rules were made. */
static void test_a_swapped_link(void **state)
{
    pid_t pid;
    int ready[2], status = 0;
    char c = 0;

    (void)state;
    if (!kernel_can())
        skip();
    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        enter();
        EXPECT(try_open("in/k.pem", O_RDONLY) == 0);
        EXPECT(write(ready[1], "x", 1) == 1);
        while (access("swapped", F_OK) < 0)
            usleep(1000);
        EXPECT(try_open("in/k.pem", O_RDONLY) == EACCES);
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(unlink("in/k.pem"), 0);
    assert_int_equal(symlink("../out/secret", "in/k.pem"), 0);
    write_file("swapped", "");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(ready[0]);
}

static void programs_body(void)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    EXPECT(n > 0);
    self[n] = '\0';
    setenv("SANDBOX_TEST_RUN", "1", 1);
    EXPECT(try_run("/bin/true") == 0);
    enter();
    EXPECT(try_run("/bin/true") == 113);
    EXPECT(try_run("/bin/sh") == 113);
    EXPECT(try_run(self) == 7); /* see main */
}

static void test_programs(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* what it brings along for the program that is run wants files of its own */
#endif
    in_child(programs_body);
}

static void signals_body(void)
{
    char memory[64];

    snprintf(memory, sizeof(memory), "/proc/%ld/mem", (long)getppid());
    EXPECT(try_open(memory, O_RDONLY) == 0 || geteuid() != 0);
    enter();
    EXPECT(try_open(memory, O_RDONLY) == EACCES);
    /* From version 6 on: to nobody outside. */
    EXPECT(kill(getpid(), 0) == 0);
    EXPECT(syscall(444, NULL, 0, 1) < 6 || (kill(getppid(), 0) < 0 && errno == EPERM));
}

static void test_signals(void **state)
{
    (void)state;
    in_child(signals_body);
}

static void often_body(void)
{
    int i;

    for (i = 0; i < 20; i++) /* the kernel takes sixteen */
        enter();
    EXPECT(try_open("in/c.pem", O_RDONLY) == 0);
    EXPECT(try_open("out/secret", O_RDONLY) == EACCES);
}

static void test_as_often_as_somebody_takes_over(void **state)
{
    (void)state;
    in_child(often_body);
}

static void off_body(void)
{
    struct config *c = load();
    struct err e = {0};

    c->sandbox = CONFIG_SANDBOX_OFF;
    EXPECT(sandbox_become(c, &e) == 0 && sandbox_enter(c, &e) == 0);
    EXPECT(!sandbox_is_tight() && sandbox_check(c, &e) == 0);
    EXPECT(try_open("out/secret", O_RDONLY) == 0);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
}

static void test_off(void **state)
{
    (void)state;
    in_child(off_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_use_has_its_rights, set_up, tear_down),
        cmocka_unit_test(test_a_name_that_only_begins_alike),
        cmocka_unit_test_setup_teardown(test_links, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_shared_directories, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_configuration_that_does_not_fit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_swapped_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_programs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_signals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_as_often_as_somebody_takes_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_off, set_up, tear_down),
    };

    if (getenv("SANDBOX_TEST_RUN"))
        return 7;
    return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
