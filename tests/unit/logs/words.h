/* Short words for the table tests: one world, mostly its stream 0. */
#ifndef TESTS_LOGS_WORDS_H
#define TESTS_LOGS_WORDS_H

#include "model.h"

extern struct world *w;

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int set_up(void **state); /* A new world for each test. */
int tear_down(void **state);
int begin(char kind, const char *text); /* A call is made; its index. */
bool answered(int call);
void call(char kind, const char *text); /* A call that is accepted and durable. */
/* One request of that kind, to stream 0, and its end; what it commits is durable. */
void request(enum op_kind kind, enum ending how);
void request_times(enum op_kind kind, enum ending how, unsigned n);
void nothing_ready(void);
void take_lines(const char *text); /* The next request is for these lines. */
void ends(enum ending how); /* ... and ends so. */
void ledger(enum ledger_row row, int64_t n); /* The row has this number. */
void upstream(const char *entries, const char *content); /* What upstream holds of stream 0. */
void restart(void); /* A restart after all commits. */
unsigned count_lives(void);

#endif
