/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The p2m of a PV guest: which frames make up its pages.
 *
 * Two forms (xen/include/public/arch-x86/xen.h, struct arch_shared_info). The *list* is linear in the guest's virtual
 * memory and is found through page tables: four levels for a 64-bit guest, three (PAE) for a 32-bit one, entries of 64
 * bits in both. The *tree* has three levels of pages full of frame numbers as wide as the guest's long; its lowest
 * level is the p2m itself. Both are walked by the same code: levels of tables above, *leaf* pages below.
 *
 * Pure: pages come from a p2m_source, what is found goes to a p2m_sink. Everything is the guest's and hostile: numbers
 * are bounded before they are used, an entry is loaded once, nothing is allocated, and a step looks at hardly
 * more entries than it is told to. Frames are machine frames of 4 KiB.
 */
#ifndef P2MGUARD_P2M_H
#define P2MGUARD_P2M_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/sharedinfo.h"

#define P2M_PAGE_BYTES 4096

/* 64 TiB of guest; a 4-level PV kernel cannot have more. */
#define P2M_MAX_PFNS (UINT64_C(1) << 34)

/* Tables that are mapped at once, at most. */
#define P2M_BATCH 64

enum p2m_kind { P2M_NONE, P2M_LIST, P2M_TREE, P2M_KIND_COUNT };

/* Why a p2m is refused, or could not be read. The first ones stay whatever is tried, the last three may pass. */
enum p2m_problem {
    P2M_NO_PROBLEM,
    P2M_WIDTH_UNKNOWN,     /* neither 4 nor 8 bytes a long */
    P2M_NOT_SET_UP,        /* neither list nor tree: no engine could migrate this guest */
    P2M_MAX_PFN_ZERO,      /* a p2m without entries */
    P2M_MAX_PFN_TOO_LARGE, /* beyond 64 TiB, or beyond what three levels reach */
    P2M_ROOT_IMPOSSIBLE,   /* frame 0, or beyond 52 bits of address */
    P2M_VADDR_UNALIGNED,   /* the list does not begin with a page */
    P2M_VADDR_WRAPS,       /* the list ends before it begins, or beyond a 32-bit guest's 4 GiB */
    P2M_VADDR_FIVE_LEVELS, /* canonical only with five levels of page tables, which PV guests never have */
    P2M_VADDR_NOT_CANONICAL,
    P2M_VADDR_HYPERVISOR, /* overlaps what the hypervisor keeps for itself */
    P2M_SUPERPAGE,        /* a large page in the list's mapping */
    P2M_FRAME_IMPOSSIBLE, /* a frame number in the tree beyond 52 bits of address, or frame 0 in the list's mapping */
    P2M_NOT_PRESENT,      /* an entry is not there: an update may be under way */
    P2M_UNMAPPABLE,       /* a frame that cannot be mapped: freed meanwhile, or never the guest's */
    P2M_MOVING,           /* the guest was changing it while it was read */
    P2M_PROBLEM_COUNT
};

struct p2m {
    enum p2m_kind kind;
    unsigned width;
    unsigned levels;      /* of tables above the leaf pages */
    unsigned index_bits;  /* of a table's index */
    unsigned entry_bytes; /* of a table's entry */
    uint64_t root;        /* frame of the top table */
    uint64_t first_page; /* the list's first page: its address / 4096 without the bits above the top table's; tree: 0 */
    uint64_t first_vaddr, last_vaddr; /* of the list's bytes; tree: 0 */
    uint64_t max_pfn;                 /* one more than the highest */
    uint64_t leaves;                  /* leaf pages that make up the p2m */
};

/* Where a guest's p2m is said to be, checked and bounded. P2M_NO_PROBLEM, or why not (`p2m` is then kind P2M_NONE). */
enum p2m_problem p2m_describe(const struct sharedinfo *info, struct p2m *p2m);

/*
 * Gives pages. `map` makes `count` (at most P2M_BATCH) frames readable in a row at *at, all of them or none: 0, -EFAULT
 * when the guest has no such frame, or another negative errno, which ends the walk. What is mapped is unmapped.
 */
struct p2m_source {
    int (*map)(void *context, const uint64_t *frames, unsigned count, const void **at);
    void (*unmap)(void *context, const void *at, unsigned count);
    void *context;
    unsigned batch; /* how many tables are asked for at once, 1 to P2M_BATCH */
};

/*
 * Takes what is found, in rising order whatever the size of the steps: level 0 are leaf pages, the others tables.
 * `first` is the first leaf page that the frames stand for. A table that is entered twice in a row (as Linux does with
 * the page of missing entries) is reported twice, its content once.
 */
struct p2m_sink {
    void (*take)(void *context, unsigned level, uint64_t first, const uint64_t *frames, unsigned count);
    void *context;
};

/*
 * The entries that a walk has loaded, when they were few: as long as they stand where they stood, and their pages stay
 * mapped, another walk would find the same.
 */
#define P2M_NOTES_MOST 4

struct p2m_notes {
    unsigned count; /* more than P2M_NOTES_MOST: they were not noted */
    unsigned entry_bytes;
    const void *at[P2M_NOTES_MOST];
    uint64_t entries[P2M_NOTES_MOST];
};

/* False also when nothing was noted. Loads each entry once. */
bool p2m_notes_stand(const struct p2m_notes *notes);

/* A walk that can be done in steps. Set `p2m`, `lowest` and `notes`, the rest to 0. */
struct p2m_walk {
    const struct p2m *p2m;
    struct p2m_notes *notes; /* NULL: none are taken */
    unsigned lowest;         /* tables of this level and above are read: 1 = all; see p2m_top_level */
    uint64_t next;           /* the leaf page that the walk has come to */
    uint64_t pages;          /* met so far: tables and leaf pages, a page met several times in a row counted once */
    uint64_t last_table, last_below; /* frames met last, of the lowest level and below it */
    enum p2m_problem problem;
    unsigned problem_level; /* of the table with the entry, or that could not be mapped */
    uint64_t problem_leaf;  /* the leaf page looked for */
};

/* The `lowest` for a glance at the tables near the root: a handful even for the largest guest. */
unsigned p2m_top_level(const struct p2m *p2m);

/*
 * Goes on for this many entries of tables, and at most P2M_BATCH tables and those above them more. 1: there is more to
 * do; 0: at the end; -EBADMSG: walk->problem says what; any other negative errno is the source's.
 */
int p2m_walk_step(struct p2m_walk *walk, const struct p2m_source *source, unsigned entries,
                  const struct p2m_sink *sink);

/* Whether looking again may help. */
bool p2m_problem_may_pass(enum p2m_problem problem);

/* "list", "tree" or "none". */
const char *p2m_kind_name(enum p2m_kind kind);

/* The word for a problem, and a sentence about it without a full stop. Never NULL. */
const char *p2m_problem_name(enum p2m_problem problem);
const char *p2m_problem_text(enum p2m_problem problem);

#endif
