/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files into settings. Keys are inih's to find; lines and sections are counted here, for it does not tell of them. */
#include "daemon/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <ini.h>

#include "daemon/hypervisor.h"
#include "daemon/settings-table.h"
#include "daemon/text.h"

#define SETTINGS_BLANKS " \t\r\n\v\f"
#define SETTINGS_NULL makedev(1, 3) /* /dev/null */

enum settings_part { PART_NONE, PART_DAEMON, PART_POLICY, PART_DOMAIN };

struct settings_reader {
    struct settings *settings;
    struct settings_problem *problem;
    int error;   /* the first one; nothing is read any more */
    size_t file; /* in settings->files */
    FILE *stream;
    int line;
    enum settings_part part;
    char *buffer;
    size_t buffer_size;
};

/* Returns 0, which is inih's "no". */
__attribute__((format(printf, 2, 3))) static int settings_refuse(struct settings_reader *reader, const char *format,
                                                                 ...)
{
    va_list arguments;

    if (reader->error)
        return 0;
    reader->error = -EINVAL;
    reader->problem->line = reader->line;
    va_start(arguments, format);
    vsnprintf(reader->problem->what, sizeof(reader->problem->what), format, arguments);
    va_end(arguments);
    text_make_utf8(reader->problem->what);
    return 0;
}

static int settings_no_memory(struct settings_reader *reader)
{
    settings_refuse(reader, "out of memory");
    reader->error = -ENOMEM;
    return 0;
}

/* ---- sections ---- */

/* In the form in which the hypervisor's are written; upper case is made lower. */
static bool settings_make_uuid(char *text)
{
    if (strlen(text) != HYPERVISOR_UUID_LENGTH)
        return false;
    for (size_t i = 0; i < HYPERVISOR_UUID_LENGTH; i++) {
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        if (hyphen ? text[i] != '-' : !strchr("0123456789abcdefABCDEF", text[i]))
            return false;
    }
    for (; *text; text++)
        if (*text >= 'A' && *text <= 'F')
            *text = (char)(*text - 'A' + 'a');
    return true;
}

/* `wanted`: what stands behind "domain". */
static void settings_begin_domain(struct settings_reader *reader, const char *wanted)
{
    struct settings *settings = reader->settings;
    struct settings_domain *domains, *domain;

    wanted += strspn(wanted, SETTINGS_BLANKS);
    if (!*wanted || strlen(wanted) >= SETTINGS_SECTION_MAX - strlen("domain ")) {
        settings_refuse(reader, "[domain] has %s, expected a pattern of at most %zu bytes, or a uuid",
                        *wanted ? "too long a name" : "no name", SETTINGS_SECTION_MAX - strlen("domain ") - 1);
        return;
    }
    domains = reallocarray(settings->domains, settings->domain_count + 1, sizeof(*domains));
    if (!domains) {
        settings_no_memory(reader);
        return;
    }
    settings->domains = domains;
    domain = &domains[settings->domain_count++];
    memset(domain, 0, sizeof(*domain));
    domain->origin = (struct settings_origin){SETTINGS_FROM_FILE, reader->line, reader->file};
    char *end = stpcpy(domain->section, "domain ");
    strcpy(end, wanted);
    domain->is_uuid = settings_make_uuid(end);
    reader->part = PART_DOMAIN;
}

/* A line that begins with a bracket; the last one on it ends the name, so that a pattern may have some. */
static void settings_take_header(struct settings_reader *reader, char *line)
{
    char *comment = strstr(line, " ;");
    size_t length;

    if (comment)
        *comment = '\0';
    length = strlen(line);
    while (length && strchr(SETTINGS_BLANKS, line[length - 1]))
        length--;
    if (line[length - 1] != ']') {
        settings_refuse(reader, "expected [section] and nothing else on its line");
        return;
    }
    line[length - 1] = '\0';
    char *name = line + 1 + strspn(line + 1, SETTINGS_BLANKS);
    for (length = strlen(name); length && strchr(SETTINGS_BLANKS, name[length - 1]); length--)
        name[length - 1] = '\0';
    if (strcmp(name, "daemon") == 0)
        reader->part = PART_DAEMON;
    else if (strcmp(name, "policy") == 0)
        reader->part = PART_POLICY;
    else if (strncmp(name, "domain", 6) == 0 && (!name[6] || strchr(SETTINGS_BLANKS, name[6])))
        settings_begin_domain(reader, name + 6);
    else
        settings_refuse(reader, "unknown section '[%s]', expected [daemon], [policy] or [domain NAME]", name);
}

/* ---- keys ---- */

/* Where this section has the key already, in this file; NULL when it has not. */
static const struct settings_origin *settings_find_twin(const struct settings_reader *reader, size_t key)
{
    const struct settings *settings = reader->settings;
    const struct settings_origin *origin = &settings->origins[key];

    if (reader->part == PART_DOMAIN) {
        const char *section = settings->domains[settings->domain_count - 1].section;
        const struct settings_domain *domain = settings_find_domain(settings, section, key);
        if (!domain)
            return NULL;
        origin = &domain->origins[key];
    }
    return origin->source == SETTINGS_FROM_FILE && origin->file == reader->file ? origin : NULL;
}

static const char *settings_part_name(const struct settings_reader *reader)
{
    if (reader->part == PART_DOMAIN)
        return reader->settings->domains[reader->settings->domain_count - 1].section;
    return reader->part == PART_DAEMON ? "daemon" : "policy";
}

/* The handler's section is cut at 49 bytes: the reader's own counts. */
static int settings_on_key(void *context, const char *section, const char *name, const char *value)
{
    struct settings_reader *reader = context;
    struct settings *settings = reader->settings;
    (void)section;

    if (reader->error)
        return 0; /* inih goes on after an error; the first is the one to tell */
    if (reader->part == PART_NONE)
        return settings_refuse(reader, "key '%s' is in no section, expected [daemon] or [policy] before it", name);
    size_t index = settings_key_find(reader->part != PART_DAEMON, name);
    if (index == SETTINGS_KEYS)
        return settings_refuse(reader, "unknown key '%s' in [%s]", name, settings_part_name(reader));
    const struct settings_key *key = &settings_keys[index];
    const struct settings_origin *twin = settings_find_twin(reader, index);
    if (twin)
        return settings_refuse(reader, "%s is given twice in [%s], first in line %d", name, settings_part_name(reader),
                               twin->line);
    struct settings_domain *domain =
        reader->part == PART_DOMAIN ? &settings->domains[settings->domain_count - 1] : NULL;
    void *base = domain ? (void *)&domain->guarding : settings_key_base(settings, key);
    struct settings_problem *problem = reader->problem;
    if (settings_key_parse(key, base, value, problem->what, sizeof(problem->what))) {
        reader->error = -EINVAL;
        problem->line = reader->line;
        text_make_utf8(problem->what);
        return 0;
    }
    *(domain ? &domain->origins[index] : &settings->origins[index]) =
        (struct settings_origin){SETTINGS_FROM_FILE, reader->line, reader->file};
    return 1;
}

/* ---- lines ---- */

/* What is no comment is to be text. */
static bool settings_is_text(const char *line, size_t length)
{
    char copy[INI_MAX_LINE];

    if (length >= sizeof(copy) || memchr(line, '\0', length))
        return false;
    memcpy(copy, line, length);
    copy[length] = '\0';
    text_make_utf8(copy);
    if (memcmp(copy, line, length) != 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (((unsigned char)line[i] < ' ' && !strchr(SETTINGS_BLANKS, line[i])) || line[i] == 0x7f)
            return false;
    return true;
}

/*
 * inih's reader: gives it one line, without what it makes something else of: blanks before a key would be the value
 * before it, going on. Sections and comments are empty lines to it.
 */
static char *settings_on_line(char *to, int room, void *context)
{
    struct settings_reader *reader = context;

    if (reader->error)
        return NULL;
    errno = 0;
    ssize_t length = getline(&reader->buffer, &reader->buffer_size, reader->stream);
    if (length < 0) {
        if (errno == ENOMEM)
            settings_no_memory(reader);
        else if (ferror(reader->stream))
            settings_refuse(reader, "reading failed: %s", strerror(errno));
        return NULL;
    }
    reader->line++;
    char *line = reader->buffer;
    if (reader->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
        line += 3, length -= 3;
    size_t blanks = strspn(line, SETTINGS_BLANKS);
    line += blanks, length -= (ssize_t)blanks;
    strcpy(to, "\n"); /* what inih is given has one, or not */
    if (length == 0 || *line == '#' || *line == ';')
        return to;
    if (length && line[length - 1] == '\n')
        line[--length] = '\0';
    if (length + 2 > room)
        settings_refuse(reader, "the line has %zd bytes, expected at most %d", length, room - 2);
    else if (!settings_is_text(line, (size_t)length))
        settings_refuse(reader, "the line is no text, expected UTF-8 without control characters");
    else if (*line == '[')
        settings_take_header(reader, line);
    else
        memcpy(to, line, (size_t)length + 1);
    return reader->error ? NULL : to;
}

/* ---- files ---- */

static int settings_add_file(struct settings *settings, const char *path)
{
    char **files = reallocarray(settings->files, settings->file_count + 1, sizeof(*files));

    if (!files)
        return -ENOMEM;
    settings->files = files;
    files[settings->file_count] = strdup(path);
    if (!files[settings->file_count])
        return -ENOMEM;
    settings->file_count++;
    return 0;
}

/* A regular file, or /dev/null, which is how systemd's users hide a drop-in. */
static FILE *settings_open(struct settings_reader *reader, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    FILE *stream = NULL;

    if (fd < 0 || fstat(fd, &status) < 0) {
        settings_refuse(reader, "%s", strerror(errno));
        reader->error = fd < 0 && errno == ENOENT ? -ENOENT : reader->error;
    } else if (!S_ISREG(status.st_mode) && !(S_ISCHR(status.st_mode) && status.st_rdev == SETTINGS_NULL)) {
        settings_refuse(reader, "is no regular file");
    } else if (!(stream = fdopen(fd, "r"))) {
        settings_no_memory(reader);
    }
    if (fd >= 0 && !stream)
        close(fd);
    return stream;
}

static int settings_read(struct settings *settings, const char *path, struct settings_problem *problem)
{
    struct settings_reader reader = {.settings = settings, .problem = problem, .file = settings->file_count};

    snprintf(problem->file, sizeof(problem->file), "%s", path);
    reader.stream = settings_open(&reader, path);
    if (!reader.stream)
        return reader.error;
    if (settings_add_file(settings, path))
        settings_no_memory(&reader);
    int line = ini_parse_stream(settings_on_line, &reader, settings_on_key, &reader);
    if (line > 0)
        settings_refuse(&reader, "expected [section] or key = value");
    else if (line < 0)
        settings_no_memory(&reader);
    free(reader.buffer);
    fclose(reader.stream);
    return reader.error;
}

/* ---- drop-ins ---- */

struct settings_list {
    char **paths;
    size_t count;
};

static void settings_list_clear(struct settings_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->paths[i]);
    free(list->paths);
}

static const char *settings_leaf(const char *path)
{
    return strrchr(path, '/') + 1;
}

/* In its place by name; one of that name goes. */
static int settings_list_add(struct settings_list *list, const char *folder, const char *name)
{
    char **paths = reallocarray(list->paths, list->count + 1, sizeof(*paths)), *path;
    size_t at = 0;

    if (!paths)
        return -ENOMEM;
    list->paths = paths;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return -ENOMEM;
    while (at < list->count && strcmp(settings_leaf(paths[at]), name) < 0)
        at++;
    if (at < list->count && strcmp(settings_leaf(paths[at]), name) == 0) {
        free(paths[at]);
    } else {
        memmove(&paths[at + 1], &paths[at], (list->count - at) * sizeof(*paths));
        list->count++;
    }
    paths[at] = path;
    return 0;
}

static bool settings_is_drop_in(const char *name)
{
    size_t length = strlen(name);

    return *name != '.' && length > 5 && strcmp(name + length - 5, ".conf") == 0;
}

static int settings_list_folder(struct settings_list *list, const char *folder, struct settings_problem *problem)
{
    DIR *stream = opendir(folder);
    const struct dirent *entry;
    int error = 0;

    if (!stream && errno == ENOENT)
        return 0;
    *problem = (struct settings_problem){.line = 0};
    snprintf(problem->file, sizeof(problem->file), "%s", folder);
    if (stream) {
        while (!error && (errno = 0, entry = readdir(stream)))
            error = settings_is_drop_in(entry->d_name) ? settings_list_add(list, folder, entry->d_name) : 0;
        if (!error && errno)
            error = -errno;
    } else {
        error = -errno;
    }
    if (error)
        snprintf(problem->what, sizeof(problem->what), "%s", strerror(-error));
    if (stream)
        closedir(stream);
    return error;
}

/* ---- a whole configuration ---- */

/* What is wrong with the text of a file or a folder is all the same to the caller. */
static int settings_finish(struct settings *settings, struct settings *next, int error)
{
    if (!error) {
        *settings = *next;
        return 0;
    }
    settings_clear(next);
    return error == -ENOMEM ? -ENOMEM : -EINVAL;
}

int settings_load(struct settings *settings, const struct settings_sources *sources, struct settings_problem *problem)
{
    struct settings_problem found = {.line = 0};
    struct settings_list list = {NULL, 0};
    struct settings next;
    int error;

    settings_init(&next);
    error = settings_read(&next, sources->file, &found);
    if (error == -ENOENT && !sources->required)
        error = 0;
    for (int i = 0; i < 2 && !error; i++)
        if (sources->folders[i])
            error = settings_list_folder(&list, sources->folders[i], &found);
    for (size_t i = 0; i < list.count && !error; i++)
        error = settings_read(&next, list.paths[i], &found);
    settings_list_clear(&list);
    if (error)
        *problem = found;
    return settings_finish(settings, &next, error);
}

int settings_load_files(struct settings *settings, const char *const *files, size_t count,
                        struct settings_problem *problem)
{
    struct settings_problem found = {.line = 0};
    struct settings next;
    int error = 0;

    settings_init(&next);
    for (size_t i = 0; i < count && !error; i++)
        error = settings_read(&next, files[i], &found);
    if (error)
        *problem = found;
    return settings_finish(settings, &next, error);
}

int settings_sources_of(struct settings_sources *sources, const char *config, char **folder)
{
    *sources = (struct settings_sources){.file = config ? config : SETTINGS_FILE, .required = config != NULL};
    if (asprintf(folder, "%s.d", sources->file) < 0) {
        *folder = NULL;
        return -ENOMEM;
    }
    sources->folders[0] = config ? NULL : SETTINGS_VENDOR_FOLDER;
    sources->folders[1] = *folder;
    return 0;
}
