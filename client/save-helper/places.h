/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where libxl's own save helper is, below a folder of its own for each version of Xen in Debian, or else. */
#ifndef P2MGUARD_SAVE_HELPER_PLACES_H
#define P2MGUARD_SAVE_HELPER_PLACES_H

#define PLACES_OF_VERSION "/usr/lib/xen-%s/bin/libxl-save-helper"

static const char *const places[] = {
    "/usr/libexec/xen/bin/libxl-save-helper",
    "/usr/lib/xen/bin/libxl-save-helper",
    "/usr/local/libexec/xen/bin/libxl-save-helper",
    "/usr/local/lib/xen/bin/libxl-save-helper",
};

#define PLACES (sizeof(places) / sizeof(places[0]))

#endif
