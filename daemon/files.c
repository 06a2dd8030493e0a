/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/files.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "daemon/log.h"

unsigned files_make_room(int64_t max_connections, int64_t max_sessions)
{
    rlim_t most = files_for_connections(max_connections);
    rlim_t reserved = files_for_the_rest(max_sessions), needed = most + reserved;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= needed)
        return (unsigned)most;
    limit.rlim_cur = limit.rlim_max < needed ? limit.rlim_max : needed;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warning("raising the limit of open files failed: %s", strerror(errno));
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= needed)
        return (unsigned)most;
    /* Never all of them for connections: a guard needs descriptors as well. */
    rlim_t left = limit.rlim_cur > 2 * reserved ? limit.rlim_cur - reserved : limit.rlim_cur / 2;
    left = left < most ? left : most;
    if (left < (rlim_t)max_connections)
        log_warning("there is room for %llu connections and not for %u: no more than %llu files may be open; "
                    "LimitNOFILE=%llu would do",
                    (unsigned long long)left, (unsigned)max_connections, (unsigned long long)limit.rlim_cur,
                    (unsigned long long)needed);
    return (unsigned)(left ? left : 1);
}
