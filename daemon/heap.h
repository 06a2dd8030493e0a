/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a crowd of callers leaves behind in the process's memory. */
#ifndef P2MGUARD_HEAP_H
#define P2MGUARD_HEAP_H

/*
 * Gives memory that nobody uses back to the system, of all threads, but for the pieces that malloc keeps at hand for
 * another thread than the calling one. Takes a few milliseconds. Where the C library is not glibc it does nothing.
 */
void heap_give_back(void);

#endif
