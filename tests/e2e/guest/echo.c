/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * echo   copies control/echo to data/echo whenever it is written: what a bare round trip to a guest takes, for
 *        comparison. It blocks in libxenstore, reads and writes, and does nothing else.
 */
#include <stdlib.h>
#include <xenstore.h>

int main(void)
{
    struct xs_handle *xs = xs_open(0);
    unsigned count, length;

    if (!xs || !xs_watch(xs, "control/echo", "echo"))
        return 1;
    for (;;) {
        free(xs_read_watch(xs, &count));
        char *value = xs_read(xs, XBT_NULL, "control/echo", &length);
        if (value)
            xs_write(xs, XBT_NULL, "data/echo", value, length);
        free(value);
    }
}
