/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that changes something in sysfs, and the words in which it is asked for.
 *
 * It has to be done in everybody's mount namespace, and the kernel wants CAP_SYS_ADMIN for most of it. The agent does
 * it itself, or has agent-sysfs do it (ask.h), which is all that program can do. A read-only mount of a folder onto
 * itself keeps everybody else from writing there, and tells them so (EROFS).
 *
 * Requests and answers are text, one a message. Their parsers take (text, length), allocate nothing, and are pure.
 */
#ifndef P2MGUARD_CLIENT_AGENT_SYSFS_H
#define P2MGUARD_CLIENT_AGENT_SYSFS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a value of auto_online_blocks, and of any request or answer, the terminator included. */
#define SYSFS_WORD_MAX 32
#define SYSFS_TEXT_MAX 64

enum sysfs_folder { SYSFS_BALLOON, SYSFS_HOTPLUG, SYSFS_FOLDER_COUNT };

enum sysfs_verb {
    SYSFS_READY,   /* "ready": nothing is to be done; the answer tells that somebody is there */
    SYSFS_COVER,   /* "cover FOLDER" */
    SYSFS_UNCOVER, /* "uncover FOLDER"; no error when it is not covered */
    SYSFS_TARGET,  /* "target KIB"; also while the folder is covered, by whoever has covered it */
    SYSFS_ONLINE,  /* "online WORD": auto_online_blocks; not while the folder is covered */
    SYSFS_VERB_COUNT
};

struct sysfs_request {
    enum sysfs_verb verb;
    enum sysfs_folder folder; /* the one that it is about; of "ready" none */
    uint64_t kb;
    char word[SYSFS_WORD_MAX];
};

struct sysfs {
    char folders[SYSFS_FOLDER_COUNT][PATH_MAX];
    int target_fd; /* target_kb, opened before it was covered; -1 */
};

/* -errno when `root` is no folder. Nothing is changed, and target_fd is -1 in any case. */
int sysfs_init(struct sysfs *sysfs, const char *root);

int sysfs_path(char path[PATH_MAX], const char *folder, const char *name);

/* True when process `pid` certainly does not see what is mounted here. */
bool sysfs_is_apart_from(long pid);

/* 0 or a negative errno. */
int sysfs_do(struct sysfs *sysfs, const struct sysfs_request *request);

/* "balloon" or "hotplug". */
const char *sysfs_folder_name(enum sysfs_folder folder);

/* ---- text; formatting returns the length ---- */

int sysfs_request_format(const struct sysfs_request *request, char text[SYSFS_TEXT_MAX]);

/* -EINVAL when the text is no request; `request` is left alone then. */
int sysfs_request_parse(const char *text, size_t length, struct sysfs_request *request);

/* "done", or "failed ERRNO". */
int sysfs_answer_format(int outcome, char text[SYSFS_TEXT_MAX]);
int sysfs_answer_parse(const char *text, size_t length, int *outcome);

#endif
