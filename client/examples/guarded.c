/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guarded DOMAIN COMMAND [SOCKET]: runs a command while a guest holds still, and says whether it did.
 *
 * The least that a toolstack has to do: begin, migrate, ask for a verdict, end. How the guest came to be held, and what
 * was asked for meanwhile, is in the records that this program does not look at.
 */
#include <p2mguard.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static const char *const words[] = {"proceed", "retry", "abort"};
    struct p2mguard *guard;
    char session[P2MGUARD_SESSION_SIZE];

    if (argc < 3 || p2mguard_connect(&guard, argc > 3 ? argv[3] : NULL) < 0) {
        fprintf(stderr, argc < 3 ? "usage: guarded DOMAIN COMMAND [SOCKET]\n" : "guarded: there is no p2mguardd\n");
        return 2;
    }
    int verdict = p2mguard_begin(guard, argv[1], NULL, P2MGUARD_WAIT, session);
    if (verdict == 0) {
        int status = system(argv[2]);
        verdict = p2mguard_verdict(guard, session, P2MGUARD_FINAL, NULL);
        p2mguard_end(guard, session, status == 0 ? P2MGUARD_COMPLETED : P2MGUARD_FAILED, NULL);
    }
    if (verdict < 0)
        fprintf(stderr, "guarded: %s\n", p2mguard_error_text(guard));
    else
        puts(words[verdict]);
    p2mguard_close(guard);
    return verdict == P2MGUARD_PROCEED ? 0 : 1;
}
