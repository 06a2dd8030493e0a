/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes the requests of xenstored that a list names, one after the other with libxenstore as the daemon makes its own,
 * and says how long that took: what the daemon does in between is what it adds to them.
 *
 * trips REPETITIONS REST_MS LIST…: each list (trips.h) in its turn, again and again, with a pause before, as somebody
 * has it who does not do this all day.
 */
#include <unistd.h>

#include "tests/bench/bench.h"
#include "tests/bench/trips.h"

#define LISTS_MAX 8

int main(int argc, char **argv)
{
    static struct trips_list lists[LISTS_MAX];
    size_t repetitions = argc > 3 ? strtoul(argv[1], NULL, 10) : 0, count = argc > 3 ? (size_t)argc - 3 : 0;
    double *took_us[LISTS_MAX];

    if (!repetitions || count > LISTS_MAX) {
        fprintf(stderr, "usage: trips REPETITIONS REST_MS LIST...\n");
        return 2;
    }
    for (size_t i = 0; i < count; i++) {
        trips_read(&lists[i], argv[3 + i]);
        took_us[i] = calloc(repetitions, sizeof(double));
        if (!took_us[i])
            die("calloc");
    }
    struct xs_handle *store = xs_open(0), *watches = xs_open(0);
    if (!store || !watches)
        die("xs_open");
    useconds_t rest_us = (useconds_t)strtoul(argv[2], NULL, 10) * 1000;
    for (size_t round = 0; round < repetitions; round++) {
        usleep(rest_us);
        for (size_t i = 0; i < count; i++) {
            double began_us = now_us();
            trips_make(&lists[i], store, watches);
            took_us[i][round] = now_us() - began_us;
            trips_drain(watches);
        }
    }
    printf("[");
    for (size_t i = 0; i < count; i++) {
        printf("%s{\"trips\": %zu, ", i ? ", " : "", lists[i].count);
        print_samples(took_us[i], repetitions);
        printf("}");
        free(took_us[i]);
    }
    printf("]\n");
    xs_close(watches);
    xs_close(store);
    return 0;
}
