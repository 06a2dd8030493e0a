/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Findings as text, and the host's files. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/doctor/doctor.h"
#include "daemon/text.h"

__attribute__((format(printf, 2, 0))) static void finding_write(char text[FINDING_TEXT], const char *format,
                                                                va_list arguments)
{
    vsnprintf(text, FINDING_TEXT, format, arguments);
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    text_make_utf8(text);
}

void finding_set(struct finding *finding, enum finding_status status, const char *format, ...)
{
    va_list arguments;

    finding->status = status;
    va_start(arguments, format);
    finding_write(finding->found, format, arguments);
    va_end(arguments);
}

void finding_remedy(struct finding *finding, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    finding_write(finding->remedy, format, arguments);
    va_end(arguments);
}

const char *finding_quote(const char *text, char word[PATH_MAX])
{
    static const char harmless[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%,=";
    size_t used = 0;

    if (*text && !text[strspn(text, harmless)]) {
        snprintf(word, PATH_MAX, "%s", text);
        return word;
    }
    word[used++] = '\'';
    for (; *text && used < PATH_MAX - 6; text++) {
        if (*text == '\'')
            used += (size_t)sprintf(word + used, "'\\'");
        word[used++] = *text;
    }
    strcpy(word + used, "'");
    return word;
}

const char *doctor_path(const struct doctor *doctor, const char *path, char full[PATH_MAX])
{
    snprintf(full, PATH_MAX, "%s%s", doctor->root, path);
    return full;
}

ssize_t doctor_read(const struct doctor *doctor, const char *path, char *text, size_t size)
{
    char full[PATH_MAX];
    size_t used = 0;
    ssize_t length;

    text[0] = '\0';
    int fd = open(doctor_path(doctor, path, full), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    while (used < size - 1 && (length = read(fd, text + used, size - 1 - used)) != 0) {
        if (length < 0) {
            int error = -errno;
            close(fd);
            return error;
        }
        used += (size_t)length;
    }
    close(fd);
    text[used] = '\0';
    return (ssize_t)used;
}

/* The unit and the properties are our own words, so that a shell may see them. */
int doctor_ask_systemd(const struct doctor *doctor, const char *unit, const char *properties, char *text, size_t size)
{
    char command[256], full[PATH_MAX];

    text[0] = '\0';
    if (access(doctor_path(doctor, "/run/systemd/system", full), F_OK) < 0)
        return -ENOSYS;
    snprintf(command, sizeof(command), "systemctl show --property=%s %s 2>/dev/null", properties, unit);
    FILE *pipe = popen(command, "re");
    if (!pipe)
        return errno ? -errno : -ENOMEM;
    size_t used = fread(text, 1, size - 1, pipe);
    text[used] = '\0';
    return pclose(pipe) == 0 && used ? 0 : -EIO;
}

const char *doctor_property(const char *lines, const char *name, char *value, size_t size)
{
    size_t length = strlen(name);

    value[0] = '\0';
    for (const char *line = lines, *end; line; line = end ? end + 1 : NULL) {
        end = strchr(line, '\n');
        if (strncmp(line, name, length) == 0 && line[length] == '=') {
            snprintf(value, size, "%.*s", (int)strcspn(line + length + 1, "\n"), line + length + 1);
            break;
        }
    }
    return value;
}
