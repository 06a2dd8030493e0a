/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The words both ends of the control socket use: states, verdicts, reasons, outcomes, event types, error codes.
 *
 * Each list is fixed and versioned with the protocol: clients may switch on the text, so a word is never re-used for
 * something else. Nothing here allocates; the names are static strings.
 */
#ifndef P2MGUARD_PROTOCOL_NAMES_H
#define P2MGUARD_PROTOCOL_NAMES_H

#define P2MG_CONTROL_SOCKET "/run/p2mguard/control"

/* What a client sends is at most this long a line, the newline included. */
#define P2MG_MESSAGE_MAX_BYTES (64 * 1024)

/* What the daemon sends is as long as it has to be; this is far beyond a list of all domains a host can run. */
#define P2MG_REPLY_MAX_BYTES (64 * 1024 * 1024)

enum p2mg_state {
    P2MG_STATE_FREEZING,
    P2MG_STATE_HELD,
    P2MG_STATE_FAILED, /* could not be held; the thaw is under way or done */
    P2MG_STATE_THAWING,
    P2MG_STATE_GONE,
    P2MG_STATE_COUNT
};

enum p2mg_verdict { P2MG_VERDICT_PROCEED, P2MG_VERDICT_RETRY, P2MG_VERDICT_ABORT, P2MG_VERDICT_COUNT };

/* Why a verdict is what it is, or why a session failed or ended. */
enum p2mg_reason {
    P2MG_REASON_NONE,
    P2MG_REASON_UNCHANGED,            /* nothing moved since the baseline */
    P2MG_REASON_NOT_HELD_YET,         /* asked while the guest was still being frozen */
    P2MG_REASON_TOT_PAGES_CHANGED,    /* the guest's page count moved since the baseline */
    P2MG_REASON_GENERATION_CHANGED,   /* p2m_generation moved, or is odd: an update is under way */
    P2MG_REASON_STRUCTURE_CHANGED,    /* the p2m is somewhere else, or made of other pages */
    P2MG_REASON_PHYSMAP_CHANGED,      /* HVM and PVH: new gfns were mapped, or pages shared or paged out */
    P2MG_REASON_TARGET_CHANGED,       /* observed, not held: it was given a new target meanwhile */
    P2MG_REASON_ABOVE_TARGET,         /* observed: it had more pages at the start than its target allows */
    P2MG_REASON_AGENT_THAWED,         /* require agent: it said something else than frozen */
    P2MG_REASON_GATE_OPENED,          /* somebody made the target readable for the guest */
    P2MG_REASON_OBSERVATION_GAP,      /* nobody watched for longer than max_gap_ms */
    P2MG_REASON_STORE_UNREACHABLE,    /* xenstored does not answer, so the gate cannot be vouched for */
    P2MG_REASON_STRUCTURE_UNREADABLE, /* the p2m's pages cannot be read, so they cannot be vouched for */
    P2MG_REASON_ATTEMPTS_EXHAUSTED,   /* something changed, and it was the last attempt */
    P2MG_REASON_FREEZE_TIMEOUT,       /* the guest did not come to rest within freeze_timeout_ms */
    P2MG_REASON_DEADLINE,             /* max_hold_ms is over */
    P2MG_REASON_GRACE_EXPIRED,        /* nobody retried within retry_grace_ms of a retry verdict */
    P2MG_REASON_DOMAIN_GONE,          /* destroyed, or died */
    P2MG_REASON_DOMAIN_RENAMED,       /* renamed; NAME--migratedaway counts as a completed migration */
    P2MG_REASON_UNDER_GUARD,          /* observed: a session has taken over */
    P2MG_REASON_GUEST_NOT_READY,      /* the guest has not read its first target yet */
    P2MG_REASON_NOT_GUARDABLE,        /* the domain has no memory/target */
    P2MG_REASON_AGENT_ABSENT,         /* require agent: the guest runs none */
    P2MG_REASON_AGENT_REFUSED,        /* require agent: it cannot freeze its guest */
    P2MG_REASON_AGENT_SILENT,         /* require agent: it has not answered within freeze_timeout_ms */
    P2MG_REASON_CLIENT_GONE,          /* the connection that held the session was closed */
    P2MG_REASON_GUEST_RESUMED,        /* hold suspended: it runs again on this host */
    P2MG_REASON_ENDED,                /* guard.end was called */
    P2MG_REASON_SHUTDOWN,             /* the daemon was told to stop */
    P2MG_REASON_ERROR,                /* something failed that should not; the log says what */
    P2MG_REASON_COUNT
};

enum p2mg_outcome {
    P2MG_OUTCOME_UNKNOWN,
    P2MG_OUTCOME_COMPLETED,
    P2MG_OUTCOME_FAILED,
    P2MG_OUTCOME_CANCELLED,
    P2MG_OUTCOME_COUNT
};

/* How much must be true before a guest counts as held; each includes those before it. */
enum p2mg_require { P2MG_REQUIRE_GATE, P2MG_REQUIRE_SETTLED, P2MG_REQUIRE_AGENT, P2MG_REQUIRE_COUNT };

/* How long a guest is held, if nobody ends it before. */
enum p2mg_hold {
    P2MG_HOLD_CONNECTION, /* as long as the client's connection */
    P2MG_HOLD_DETACHED,   /* until the deadline */
    P2MG_HOLD_RETRY,      /* for the next attempt: until retry_grace_ms are over, or somebody retries */
    P2MG_HOLD_SUSPENDED,  /* while the guest is suspended: until it runs again here, or is gone */
    P2MG_HOLD_COUNT
};

/* JSON-RPC 2.0 error codes: the standard's own, then ours from the range it leaves to servers. */
enum p2mg_error {
    P2MG_ERROR_PARSE = -32700,
    P2MG_ERROR_INVALID_REQUEST = -32600,
    P2MG_ERROR_METHOD_NOT_FOUND = -32601,
    P2MG_ERROR_INVALID_PARAMS = -32602,
    P2MG_ERROR_INTERNAL = -32603,
    P2MG_ERROR_NO_SUCH_DOMAIN = -32001,
    P2MG_ERROR_NO_SUCH_SESSION = -32002,
    P2MG_ERROR_BUSY = -32003,          /* the domain is under guard already */
    P2MG_ERROR_NOT_PERMITTED = -32004, /* the caller may only read */
    P2MG_ERROR_NOT_HELD = -32005,      /* begin with wait: the guest could not be held */
    P2MG_ERROR_STORE = -32006,         /* xenstored does not answer */
    P2MG_ERROR_WRONG_STATE = -32007,
    P2MG_ERROR_LIMIT = -32008,
    P2MG_ERROR_NOT_GUARDABLE = -32009,
    P2MG_ERROR_CONFIGURATION = -32010 /* the files are not right; the settings stay as they were */
};

/* The word for a value, never NULL; "unknown" outside the range. */
const char *p2mg_state_name(enum p2mg_state state);
const char *p2mg_verdict_name(enum p2mg_verdict verdict);
const char *p2mg_reason_name(enum p2mg_reason reason);
const char *p2mg_outcome_name(enum p2mg_outcome outcome);
const char *p2mg_require_name(enum p2mg_require require);
const char *p2mg_hold_name(enum p2mg_hold hold);

/* A sentence for people about a reason, without a full stop. */
const char *p2mg_reason_text(enum p2mg_reason reason);

/* The value for a word; -EINVAL when there is none. */
int p2mg_outcome_parse(const char *text, enum p2mg_outcome *outcome);
int p2mg_require_parse(const char *text, enum p2mg_require *require);
int p2mg_hold_parse(const char *text, enum p2mg_hold *hold);

#endif
