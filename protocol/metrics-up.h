/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one metric that the daemon and, where there is none, p2mguardctl write: its help must be the same in both. */
#ifndef P2MGUARD_PROTOCOL_METRICS_UP_H
#define P2MGUARD_PROTOCOL_METRICS_UP_H

#define P2MG_METRICS_UP "p2mguard_up"
#define P2MG_METRICS_UP_HELP "Whether p2mguardd has answered."

#endif
