/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * verdicts SESSION COUNT [PHASE]   asks p2mguardd for COUNT verdicts over one connection, one after the other
 *
 * Prints "PROCEED OTHER MICROSECONDS": how many were proceed, how many were not, and how long one took on average; the
 * first answer that was not is shown on standard error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/p2mguard/control"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char line[16384];
    struct timespec start, end;
    unsigned long proceed = 0, other = 0;

    if (argc < 3 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        perror("verdicts");
        return 1;
    }
    FILE *in = fdopen(fd, "r"), *out = fdopen(fd, "w");
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (unsigned long left = strtoul(argv[2], NULL, 10); left > 0; left--) {
        fprintf(out, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"guard.verdict\",\"params\":{\"session\":\"%s\"}}\n",
                argv[1]);
        if (fflush(out) || !fgets(line, sizeof(line), in)) {
            perror("verdicts");
            return 1;
        }
        if (strstr(line, "\"verdict\":\"proceed\""))
            proceed++;
        else if (other++ == 0)
            fputs(line, stderr);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double us = (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) / 1e3;
    printf("%lu %lu %.0f\n", proceed, other, us / (double)(proceed + other));
    return 0;
}
