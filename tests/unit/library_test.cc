// SPDX-License-Identifier: LGPL-2.1-or-later
// The library's header from C++, and what it does where there is no daemon.
#include <cerrno>
#include <cstdio>

#include <p2mguard.h>

static int number;

static void expect(bool held, const char *what)
{
    std::printf("%sok %d - %s\n", held ? "" : "not ", ++number, what);
}

int main()
{
    struct p2mguard *guard = nullptr;
    int (*policy)(struct precopy_stats, void *) = p2mguard_precopy_policy;

    std::printf("1..4\n");
    expect(p2mguard_connect(&guard, "/nonexistent/control") == -ENOENT && !guard, "no socket");
    char path[200];
    for (char &character : path)
        character = 'x';
    path[sizeof(path) - 1] = '\0';
    expect(p2mguard_connect(&guard, path) == -ENAMETOOLONG && !guard, "a path that is too long");
    p2mguard_close(nullptr);
    p2mguard_record_free(nullptr);
    expect(true, "nothing to be closed or freed");
    expect(policy != nullptr, "a policy for libxenguest");
    return 0;
}
