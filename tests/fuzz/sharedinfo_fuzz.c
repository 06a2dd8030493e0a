/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads shared info pages that a hostile guest has made up, and holds what p2m_describe accepts against what the walk
 * relies on.
 *
 * Input: a byte for the guest's width, then what follows its event channels in the page.
 */
#include "daemon/sharedinfo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/p2m.h"
#include "tests/fuzz/fuzz.h"

enum { AFTER_CHANNELS_4 = 2304, AFTER_CHANNELS_8 = 3072 };

static void check_list(const struct sharedinfo *info, const struct p2m *p2m)
{
    int64_t first = (int64_t)p2m->first_vaddr, last = (int64_t)p2m->last_vaddr;

    MUST(p2m->first_vaddr == info->p2m_vaddr && info->p2m_vaddr % P2M_PAGE_BYTES == 0);
    MUST(p2m->last_vaddr - p2m->first_vaddr == p2m->leaves * P2M_PAGE_BYTES - 1 && first <= last);
    MUST(p2m->max_pfn <= UINT64_C(1) << 34);
    if (info->width == 4) {
        MUST(p2m->levels == 3 && first >= 0 && last < 0xf5800000);
        return;
    }
    /* 48 bits with a sign are what four levels translate; the lowest of those below 0 are the hypervisor's. */
    MUST(p2m->levels == 4 && last < INT64_C(1) << 47);
    MUST(first >= 0 || (first >= (INT64_C(1) << 43) - (INT64_C(1) << 47) && last < 0));
}

static void check_tree(const struct sharedinfo *info, const struct p2m *p2m)
{
    MUST(p2m->levels == 2 && p2m->first_page == 0);
    MUST(p2m->root == info->pfn_to_mfn_frame_list_list && p2m->root != (info->width == 8 ? UINT64_MAX : UINT32_MAX));
}

static void check_accepted(const struct sharedinfo *info, const struct p2m *p2m)
{
    uint64_t pfns = P2M_PAGE_BYTES / info->width;

    MUST(p2m->width == info->width && p2m->max_pfn == info->max_pfn && p2m->max_pfn > 0);
    MUST(p2m->leaves * pfns >= p2m->max_pfn && (p2m->leaves - 1) * pfns < p2m->max_pfn);
    MUST(p2m->root > 0 && p2m->root >> 40 == 0);
    MUST(p2m->entry_bytes << p2m->index_bits == P2M_PAGE_BYTES);
    MUST(p2m->first_page + p2m->leaves <= UINT64_C(1) << p2m->index_bits * p2m->levels);
    MUST(p2m_top_level(p2m) >= 2 && p2m_top_level(p2m) <= p2m->levels);
    MUST(p2m->kind == (info->p2m_cr3 ? P2M_LIST : P2M_TREE));
    if (p2m->kind == P2M_LIST)
        check_list(info, p2m);
    else
        check_tree(info, p2m);
}

static void check_info(const struct sharedinfo *info)
{
    struct sharedinfo moved = *info;
    struct p2m p2m;
    enum p2m_problem problem = p2m_describe(info, &p2m);

    if (problem == P2M_NO_PROBLEM)
        check_accepted(info, &p2m);
    else
        MUST(p2m.kind == P2M_NONE && problem <= P2M_VADDR_HYPERVISOR && !p2m_problem_may_pass(problem));
    MUST(*p2m_problem_name(problem) && *p2m_problem_text(problem));
    MUST(sharedinfo_is_updating(info) == (info->p2m_cr3 && info->p2m_generation % 2 == 1));
    moved.p2m_generation++;
    MUST(sharedinfo_same_place(info, &moved));
    moved.p2m_vaddr++;
    MUST(!sharedinfo_same_place(info, &moved));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sharedinfo info;
    unsigned width = size > 0 ? data[0] : 0;
    size_t at = width == 8 ? AFTER_CHANNELS_8 : AFTER_CHANNELS_4, length = size > 0 ? size - 1 : 0;
    char *page = calloc(1, SHAREDINFO_BYTES); /* of its own, for the sanitizer to watch its ends */

    MUST(page);
    if (length > SHAREDINFO_BYTES - at)
        length = SHAREDINFO_BYTES - at;
    if (length > 0)
        memcpy(page + at, data + 1, length);
    int error = sharedinfo_read(page, width, &info);
    MUST(error == (width == 4 || width == 8 ? 0 : -EINVAL));
    if (!error) {
        MUST(info.width == width);
        MUST(width == 8 || (info.max_pfn | info.pfn_to_mfn_frame_list_list | info.p2m_cr3 | info.p2m_vaddr |
                            info.p2m_generation) <= UINT32_MAX);
        check_info(&info);
    }
    free(page);
    return 0;
}
