/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stands in for libxl-save-helper and its like: takes any arguments, and does nothing until it is killed or its parent
 * ends. Its name is what it is copied to.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(void)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() == 1)
        return 1;
    pause();
    return 0;
}
