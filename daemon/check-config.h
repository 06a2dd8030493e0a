/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardd --check-config: reads the configuration as the daemon would, and says what is wrong with it.
 */
#ifndef P2MGUARD_CHECK_CONFIG_H
#define P2MGUARD_CHECK_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The configuration with its drop-ins, or, where there are any, these files alone. `config` is --config's. The exit
 * status: 0, or 1 when something is wrong.
 */
int check_config(const char *config, const char *const *files, size_t count, bool json);

#endif
