#include "net/seats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <cmocka.h>
#include "net/buffers.h"
#include "rt/overload.h"

static struct net_addr at(const char *text)
{
    struct net_addr a;
    struct err e;

    assert_int_equal(net_addr_parse(view_str(text), &a, &e), 0);
    return a;
}

static void the_last_tenth_is_for_others(void **state)
{
    struct net_addr one = at("192.0.2.1:1000"), again = at("192.0.2.1:2000");
    struct net_addr two = at("192.0.2.2:1000");
    int fd;

    seats_configure(20, 50);
    for (fd = 100; fd < 118; fd++)
        assert_int_equal(seat_take(fd, fd % 2 ? &one : &again, "a"), SEAT_TAKEN);
    assert_int_equal(seat_take(118, &one, "a"), SEAT_CLIENT_FULL);
    assert_int_equal(seat_take(118, &two, "b"), SEAT_TAKEN);
    assert_int_equal(seat_take(119, &two, "b"), SEAT_TAKEN);
    assert_int_equal(seat_take(120, &two, "b"), SEAT_NONE);
    assert_int_equal(seats_taken(), 20);
    seat_give_back(100);
    seat_give_back(100); /* it has none: nothing happens */
    seat_give_back(5000);
    seat_give_back(-1);
    assert_int_equal(seats_taken(), 19);
    assert_int_equal(seat_take(120, &one, "a"), SEAT_CLIENT_FULL);
    seats_configure(20, 100);
    assert_int_equal(seat_take(120, &one, "a"), SEAT_TAKEN);
    for (fd = 100; fd < 121; fd++)
        seat_give_back(fd);
    assert_int_equal(seats_taken(), 0);
}

/* A network of IPv6 is given out by 64 bits: its addresses are one client. */
static void a_network_is_one_client(void **state)
{
    struct net_addr a = at("[2001:db8::1]:1"), b = at("[2001:db8::ffff:2]:1");
    struct net_addr c = at("[2001:db8:0:1::1]:1");
    int fd;

    seats_configure(10, 50);
    for (fd = 10; fd < 19; fd++)
        assert_int_equal(seat_take(fd, fd % 2 ? &a : &b, "a"), SEAT_TAKEN);
    assert_int_equal(seat_take(19, &b, "a"), SEAT_CLIENT_FULL);
    assert_int_equal(seat_take(19, &c, "a"), SEAT_TAKEN);
    for (fd = 10; fd < 20; fd++)
        seat_give_back(fd);
}

static void room_is_asked_for_once(void **state)
{
    int i;

    assert_int_equal(seats_room_asked(), 0);
    for (i = 0; i < 1000; i++)
        seats_ask_room();
    assert_in_range(seats_room_asked(), 1, 64);
    assert_int_equal(seats_room_asked(), 0);
}

static void shares(void **state)
{
    assert_true(overload_admits(0, 0, 1, 50));
    assert_false(overload_admits(10, 0, 10, 100));
    assert_true(overload_admits(89, 89, 100, 50));
    assert_false(overload_admits(90, 90, 100, 50));
    assert_false(overload_admits(90, 50, 100, 50));
    assert_true(overload_admits(90, 49, 100, 50));
    assert_true(overload_admits(99, 99, 100, 100));
    assert_true(overload_admits(UINT64_MAX - 2, 0, UINT64_MAX, 1));
}

static void buffers_are_one_budget(void **state)
{
    buffers_configure(800);
    buffers_shift(799);
    assert_false(buffers_short());
    assert_false(buffers_eased());
    buffers_shift(1);
    assert_true(buffers_short());
    buffers_shift(-101);
    assert_true(buffers_eased());
    buffers_shift(-699);
    assert_int_equal(buffers_used(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_tenth_is_for_others), cmocka_unit_test(a_network_is_one_client),
        cmocka_unit_test(room_is_asked_for_once),       cmocka_unit_test(shares),
        cmocka_unit_test(buffers_are_one_budget),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
