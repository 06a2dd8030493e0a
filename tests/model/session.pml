/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One guest under guard, with all that may happen to it: for spin. tests/model/run says which bounds are run, and what
 * is claimed.
 *
 * What is modelled
 * - The session: its steps, events and rows are not written down here but made of the table in daemon/session.c
 *   (table.c), and so are the names of the guards and actions below.
 * - gate.c's calls, agent.c's, and the recovery by the next daemon, one round trip to xenstored and one hypercall after
 *   the other; these are written down here a second time. A transaction is one step, for xenstored makes a commit
 *   wholly or not at all, and one that fails is begun anew. Everybody else may do anything between two steps, and the
 *   daemon may be killed there.
 * - The connection: lost before a request is answered, whether it was done or not, or while the daemon does nothing;
 *   it comes back when it likes. Watch events are lost with it. An xenstored that restarts with its tree is the same.
 *   It may also refuse what it is asked, and the daemon be short of memory for a job.
 * - The toolstack: sets max_pages and the target, in that order, as libxl does, whenever it likes; an unskilful
 *   administrator opens the gate; the caller asks for verdicts, for a retry, and ends or goes away whenever it likes.
 * - The guest: its balloon driver reads a target when it can see it, or never, and works towards the last one that it
 *   has read as slowly as it likes; a hostile one changes its size and its p2m_generation at any time, and the size
 *   back again.
 * - The guest's agent with its lease, whatever it answers.
 * - A domain that goes at any time, and another guest that gets its number.
 *
 * What is left out
 * - Time. Whatever has a time limit may happen at any moment, and what counts against proceed by being late
 *   (max_gap_ms, a verdict that xenstored does not answer) is not here.
 * - Sizes are 1 and 2, and at rest a guest's size is its target: how the offset is learned (rest.c) is not here. The
 *   max_pages that a toolstack sets is never the number of a cap of ours; one that is cannot be told apart.
 * - The look at max_pages and the hypercall that follows are one step: there is no compare-and-set, as ARCHITECTURE.md
 *   says.
 * - A request that a killed daemon has sent is done before the next daemon's first, or never.
 * - The structure of the p2m and the physmap: they are figures like p2m_generation, and are compared together with it.
 * - Nodes beside memory/target, private ones too; the target is not removed for good. Values that are no numbers. A
 *   size that changes and changes back between two looks at a hostile guest is missed, here as there.
 * - The guest's new domain on this same host (gate_mark, gate_pass_on), callers in xenstore (migrate-nodes.c),
 *   observations, and more than one guest: sessions share no state but the connection.
 * - An agent that is killed (client/agent/undo.c), and the order in which events that came while a job was away are
 *   handled: here they come in any order, but for the one to stop, which is heeded first as in session_prefer_stop().
 *
 * MISTAKE makes one that was made once, or could be: a run with it has to fail. What is given to a run, bounds and
 * mistake, are variables that do not change, so that one program serves for all of them.
 */

/* ---- what is given to a run, in the environment ---- */

byte KILLS;    /* of the daemon, at most */
byte LOSSES;   /* of the connection */
byte REFUSALS; /* of a request, by xenstored: no room, a quota, too many conflicts; or no memory for a job */
byte WRITES;   /* of the toolstack */
byte OPENINGS; /* of the gate, by somebody else */
byte MOVES;    /* of a hostile guest */
byte VERDICTS; /* that are asked for */
byte RETRIES;
byte SESSIONS; /* one after the other */
byte REQUIRE;  /* what a policy may require: a sum of these */
#define ANY_GATE 1
#define ANY_SETTLED 2
#define ANY_AGENT 4
bool BALLOON; /* the guest has a driver */
bool AGENT;   /* and an agent */
bool DEATH;   /* the domain may go */
bool REST;    /* a guest at rest may be pinned at once */
bool MISHAPS; /* time-outs, a young guest, a p2m that cannot be read, a target that is removed and made again */
bool NEVER_AGAIN; /* a killed daemon is not started again */

byte MISTAKE; /* 0, or the number of one of these */
#define JOURNAL_LATE 1 /* the gate is closed, and the journal written afterwards */
#define CAP_NOT_JOURNALLED 2 /* another cap is set without being noted */
#define CAP_PAST_FORGOTTEN 3 /* the journal knows the cap that is to be, and not the one that is */
#define REQUEST_NOT_JOURNALLED 4 /* an agent is asked without being noted */
#define DROPPED_FIRST 5 /* the journal goes before everything is put back */
#define THAW_FORGOTTEN 6 /* a session ends with its caller, and nothing is put back */
#define THAW_GIVEN_UP 7 /* what could not be put back is not tried again */
#define LEASE_BY_LOOK 8 /* an agent's own looks renew its lease */
#define PIN_NOT_JOURNALLED 9 /* a new pin is written without being noted */
#define PIN_LIKE_A_TARGET 10 /* a pin has no zero */
#define COMMIT_LOST 11 /* a commit without an answer counts as not made (was so) */
#define CAP_WRITE_LOST 12 /* a journal that was not written counts as written (was so) */
#define MAX_NOT_LOOKED_AT 13 /* max_pages is not looked at again once the journal is written (was so) */
#define WISH_TAKEN_BACK 14 /* a wish that was taken back before a pin took its place is kept (was so) */
#define WISH_LEARNT_BY_HALF 15 /* no wish in the journal counts as no news (was so) */
#define CHECK_BEFORE 16 /* whose number it is is asked before the transaction (was so) */
#define GATE_NOT_LOOKED_AT 17 /* a verdict does not look at the gate again */
#define SIZE_NOT_LOOKED_AT 18 /* nor at the guest */
#define CHANGE_FORGOTTEN 19 /* a change that was seen and undone is forgotten */
#define OPENING_FORGOTTEN 20 /* a gate that was found open is closed and forgotten */
#define JOBS_BEFORE_NOTICES 21 /* a job is back before the notice that the connection was lost (was so) */
#define BLIND_TIME_FORGOTTEN 22 /* a connection that was lost and came back does not count */
#define STRANGER_ASKED 23 /* whose number it is is not asked when an agent is (was so) */
#define IS(mistake) (MISTAKE == (mistake))

/* A pin has a zero before its number; a toolstack's max_pages is never a cap. */
#define PIN (IS(PIN_LIKE_A_TARGET) -> 0 : 8)
#define NUMBER(text) ((text) & 7)
#define TOOLSTACK_MAX(target) (16 + (target))
#define ROOM(max) ((max) & 7)

/* ---- guards: as in session-actions.c and session-agent.c ---- */

#define ANSWER_FROZEN 8
#define ANSWER_BUSY 16
#define ANSWER_THAWED 24
#define ANSWER_REFUSED 32
#define SAYS(kind) (a_seq && a_heard == (kind) + a_seq)
#define AGENT_FROZEN (SAYS(ANSWER_FROZEN) && !a_lost)
#define AGENT_HOLDS (require != ANY_AGENT || AGENT_FROZEN)

#define GUARD_needs_gate_only (require == ANY_GATE)
#define GUARD_was_pinned (m_pin && m_cap == s_tot)
#define GUARD_wants_agent (!a_without && !AGENT_FROZEN && (require == ANY_AGENT || AGENT))
#define GUARD_agent_is_frozen AGENT_FROZEN
#define GUARD_agent_is_at_it (AGENT && !SAYS(ANSWER_REFUSED) && !SAYS(ANSWER_THAWED))
#define GUARD_agent_thawed SAYS(ANSWER_THAWED)
#define GUARD_agent_may_come (require == ANY_AGENT && !AGENT && young)
#define GUARD_agent_is_required (require == ANY_AGENT)
#define GUARD_agent_is_awaited (require == ANY_AGENT && AGENT)
#define GUARD_agent_is_lost (!AGENT_HOLDS)
#define GUARD_gate_was_open r_reopened
#define GUARD_is_at_rest (s_tot == NUMBER(m_pin))
#define GUARD_baseline_holds (!r_reopened && (require == ANY_GATE || (AGENT_HOLDS && r_tot == b_tot)))
#define GUARD_size_moved (require != ANY_GATE && s_tot != b_tot)
#define SURVEY_STANDS 0
#define SURVEY_MAY_PASS 1
#define SURVEY_UNREADABLE 2
#define GUARD_survey_stands (survey == SURVEY_STANDS)
#define GUARD_survey_may_pass (survey == SURVEY_MAY_PASS)

#include "session-rules.pml"

/* What each step of a counterexample has led to: run prints it. */
#define SHOW(who) \
	printf(who); printf(": step %d pc %d | store: target %d open %d%d request %d | max %d tot %d gen %d guest %d", \
	       step, pc, x_target, x_folder, x_open, x_request, h_max, h_tot, h_gen, guest); \
	printf(" | journal %d: target %d deferred %d pin %d max %d cap %d past %d", \
	       j_there, j_target, j_deferred, j_pin, j_max, j_cap, j_past); \
	printf(" | memory: target %d deferred %d pin %d max %d cap %d past %d doubt %d | conn %d\n", \
	       m_target, m_deferred, m_pin, m_max, m_cap, m_past, m_doubt, conn)

/* Counted on the way, and no part of a state: what run asks for at the end. */
c_decl {
	static unsigned long proceeds, refusals;
	static unsigned char given(const char *name);
	static void report(void);
}
c_code {
	static unsigned char given(const char *name)
	{
		const char *text = getenv(name);
		return text ? (unsigned char)atoi(text) : 0;
	}
	static void report(void)
	{
		printf("verdicts: %lu proceed, %lu not\n", proceeds, refusals);
		for (unsigned i = 0; i < sizeof(row_reached); i++)
			if (row_name[i])
				printf("%s: %s\n", row_reached[i] ? "reached" : "not reached", row_name[i]);
	}
}

/* ---- what survives the daemon ---- */

byte x_target = 1;            /* memory/target: a number, or PIN + number; 0 = none */
bit x_open = 1, x_folder = 1; /* whether the guest may read the target, and its folder */
byte x_request;               /* to the agent: its SEQ; 0 = none */
byte x_answer;                /* the agent's: a kind + SEQ */

bit j_there; /* the journal */
byte j_target, j_deferred, j_pin, j_max, j_cap, j_past, j_request;
bit j_open, j_folder;

byte h_tot = 1;                /* the hypervisor: tot_pages */
byte h_max = TOOLSTACK_MAX(1); /* max_pages */
byte h_gen;                    /* p2m_generation */
#define GUEST_OURS 1
#define GUEST_NONE 0
#define GUEST_OTHER 2
byte guest = GUEST_OURS; /* who has the domain's number */

bit young; /* it has just come up, or just arrived */
byte g_knows = 1;             /* the target that its balloon driver has read last */
byte a_frozen, a_ended;       /* its agent: frozen for this SEQ; the last one that is over */
bit a_lease, a_event;         /* there is time left; its request was written */

bit conn = 1;   /* the daemon's connection */
bit notice;     /* "lost" and "back" are on their way to the loop */
bit touched;    /* so is a watch event */
bit stop_asked; /* the caller has ended it, or is gone, or its time is over */
bit check_asked, retry_asked;

/* ---- the daemon's memory ---- */

#define P_DOWN 0
#define P_IDLE 1
#define P_BOOT 2
#define P_TAKE 3
#define P_CAP 4
#define P_SET 5
#define P_ASK 6
#define P_RESOLVE 7
#define P_LEARN 8
#define P_READ 9
#define P_PERMS 10
#define P_PUT_BACK 11
#define P_SYNC 12
#define P_MAX 13
#define P_RESTORE 14
#define P_DROP 15
#define P_RENEW 16
#define P_SURVEY 17
#define P_LATE 18
#define P_CLOSE 19
byte pc = P_BOOT;

#define JOB_NONE 0
#define JOB_TAKE 1
#define JOB_ASK 2
#define JOB_SYNC 3
#define JOB_RESTORE 4
#define JOB_RECOVER 5
#define JOB_RENEW 6
#define JOB_SURVEY 7
byte job;
byte w_pin, w_cap; /* what the job is to do */
bit w_open;
byte w_before;      /* max_pages, as it was looked at */
bit w_order, w_put; /* the store is as it should be; the pin was put back before anything else */

#define SURE 0
#define PERHAPS_CHANGED 1
#define PERHAPS_RESTORED 2
byte step = STEP_GONE;
bit timer;
bit m_taken, m_window; /* struct gate: taken, and open */
byte m_doubt;
byte m_target, m_deferred, m_pin, m_max, m_cap, m_past, m_request;
bit m_open, m_folder;
bit r_deferred, r_reopened; /* struct gate_report */
byte r_tot;
byte s_tot; /* what was seen of the guest last */
byte b_tot, b_gen; /* the baseline */
bit c_tot, c_gen, c_agent; /* changed since */
bit gate_opened, unwatched, unreachable, checking;
byte require;
byte a_seq; /* of the request that stands */
byte a_heard; /* the answer that was read last */
bit a_lost, a_was_frozen, a_without;
byte survey; /* what the last one has found */

/* ---- ghosts: what nobody in the model looks at ---- */

byte wish_target = 1, wish_max = TOOLSTACK_MAX(1); /* the toolstack's latest */
bit over = 0;        /* the session has ended, or its caller is gone, or its daemon was killed */
bit g_moved;         /* tot_pages was another one since the baseline */
bit g_seen;          /* a look has shown a change since the baseline */
bit g_opened, g_opened_before; /* the gate since the baseline; before the verdict was asked for */
bit g_wrong;         /* it was said to proceed where it must not be */
bit g_blind;         /* the connection was lost since the baseline was begun */
byte kills, losses, refusals, writes, openings, moves, verdicts, retries, sessions;

/* Between two states nothing of these is left. */
hidden byte event, action, next, ended, was_job;
hidden byte lost, differs;
hidden byte n_deferred, n_pin, n_max, n_cap, n_past;

#define E_NONE 0
#define E_DONE 1
#define E_LOST 2
#define E_GONE 3
#define E_NOT_READY 4
#define E_NOBODY 5
#define E_REFUSED 6

/* ---- round trips ---- */

inline lose()
{
	losses++; conn = 0; g_blind = 1; lost = 1
}

/* What may be lost before it is done. */
inline round_trip()
{
	if
	:: !conn -> lost = 1
	:: conn && losses < LOSSES -> lose()
	:: conn -> lost = 0
	fi;
	ended = (lost -> E_LOST : E_NONE);
	if
	:: !lost && refusals < REFUSALS -> refusals++; lost = 1; ended = E_REFUSED
	:: true
	fi
}

/* What has been done, whether it is answered or not. */
inline answer()
{
	if
	:: losses < LOSSES -> lose(); ended = E_LOST
	:: true
	fi
}

/* ---- the journal ---- */

inline journal_write(deferred, pin, request)
{
	j_there = 1;
	j_target = m_target; j_deferred = deferred; j_pin = pin;
	j_max = m_max; j_cap = m_cap; j_past = m_past; j_request = request;
	j_open = m_open; j_folder = m_folder
}

inline journal_drop()
{
	j_there = 0;
	j_target = 0; j_deferred = 0; j_pin = 0; j_max = 0; j_cap = 0; j_past = 0; j_request = 0;
	j_open = 0; j_folder = 0
}

inline journal_read()
{
	m_target = j_target; m_deferred = j_deferred; m_pin = j_pin;
	m_max = j_max; m_cap = j_cap; m_past = j_past; m_request = j_request;
	m_open = j_open; m_folder = j_folder; m_taken = 1
}

#define EXPECTED (m_pin -> m_pin : m_target)
#define WANTED (m_deferred -> m_deferred : m_target)
#define OURS(max) ((max) == m_cap || (m_past && (max) == m_past))

/* ---- the session's memory comes and goes ---- */

inline forget_job()
{
	job = JOB_NONE; w_pin = 0; w_cap = 0; w_open = 0; w_before = 0; w_order = 0; w_put = 0
}

inline forget_session()
{
	step = STEP_GONE; timer = 0;
	m_taken = 0; m_window = 0; m_doubt = SURE;
	m_target = 0; m_deferred = 0; m_pin = 0; m_max = 0; m_cap = 0; m_past = 0; m_request = 0;
	m_open = 0; m_folder = 0;
	r_deferred = 0; r_reopened = 0; r_tot = 0; s_tot = 0;
	b_tot = 0; b_gen = 0; c_tot = 0; c_gen = 0; c_agent = 0;
	gate_opened = 0; unwatched = 0; unreachable = 0; checking = 0; require = 0;
	a_seq = 0; a_heard = 0; a_lost = 0; a_was_frozen = 0; a_without = 0; survey = 0;
	g_moved = 0; g_seen = 0; g_opened = 0; g_opened_before = 0; g_blind = 0;
	touched = 0; stop_asked = 0; check_asked = 0; retry_asked = 0
}

/* ---- actions: what is handed over to the worker ---- */

/* Without memory for a job there is none, but a timer. */
inline submit(what, where)
{
	if
	:: refusals < REFUSALS -> refusals++; timer = 1
	:: true -> job = what; pc = where
	fi
}

inline submit_sync(pin, open, cap)
{
	submit(JOB_SYNC, (m_doubt != SURE -> P_RESOLVE : P_READ));
	if
	:: job == JOB_SYNC ->
		w_pin = pin; w_open = open; w_cap = cap;
		if
		:: check_asked -> check_asked = 0; checking = 1; g_opened_before = g_opened
		:: else
		fi
	:: else
	fi
}

inline submit_restore()
{
	over = 1;
	if
	:: !m_taken && m_doubt == SURE -> event = EVENT_DONE /* nothing was taken */
	:: else -> submit(JOB_RESTORE, (m_doubt != SURE -> P_RESOLVE : P_MAX))
	fi
}

inline observe()
{
	s_tot = h_tot;
	if
	:: step == STEP_HELD ->
		if
		:: s_tot != b_tot -> c_tot = 1; g_seen = 1
		:: s_tot == b_tot && IS(CHANGE_FORGOTTEN) -> c_tot = 0
		:: else
		fi;
		if
		:: h_gen != b_gen -> c_gen = 1; g_seen = 1
		:: else
		fi
	:: else
	fi
}

inline DO_take()
{
	submit(JOB_TAKE, P_TAKE);
	if
	:: REST && job == JOB_TAKE && x_target == s_tot -> w_pin = s_tot /* it has been so for long */
	:: true
	fi
}
inline DO_wait_until_up() { timer = 1 }
inline DO_expose() { submit_sync(s_tot, 1, s_tot) }
inline DO_trust_rest() { event = EVENT_DONE }
inline DO_open_window() { timer = 1 }
inline DO_sync() { submit_sync(0, m_window, 0) }
inline DO_close() { submit_sync(0, 0, 0) }
inline DO_settle() { observe() }
inline DO_settle_again() { skip }
inline DO_baseline()
{
	b_tot = s_tot; b_gen = h_gen;
	g_opened = 0;
	unwatched = 0; g_blind = 0;
	submit_sync(b_tot, 0, s_tot)
}
inline DO_survey() { submit(JOB_SURVEY, P_SURVEY) }
inline DO_hold()
{
	gate_opened = 0; unreachable = 0;
	c_tot = 0; c_gen = 0; c_agent = 0;
	g_seen = 0
}
inline DO_back_off() { a_without = 0; timer = 1 }
inline DO_retry_at_once() { a_without = 0; DO_baseline() }
inline DO_look_later() { timer = 1 }
inline DO_restore() { submit_restore() }
inline DO_thaw() { timer = 0; submit_restore() }
inline DO_give_up() { DO_thaw() }
inline DO_fail() { DO_thaw() }
inline DO_time_out() { DO_thaw() }
inline DO_fail_unreadable() { DO_thaw() }
inline DO_fail_agent() { DO_thaw() }
inline DO_give_up_waiting() { DO_thaw() }
inline DO_end_of_domain() { DO_thaw() }
inline DO_restore_later() { timer = !IS(THAW_GIVEN_UP) }
inline DO_bury() { forget_session() }
inline DO_ask()
{
	if
	:: !a_seq || a_lost || a_was_frozen || SAYS(ANSWER_THAWED) || SAYS(ANSWER_REFUSED) ->
		a_seq = (a_seq % 3) + 1; a_lost = 0; a_was_frozen = 0
	:: else
	fi;
	submit(JOB_ASK, P_ASK)
}
inline DO_await_agent() { timer = 1 }
inline DO_do_without_agent() { a_without = 1; observe() }

#define LIVE (step != STEP_GONE && step != STEP_THAWING)
#define FREEZING (LIVE && step != STEP_HELD)

inline handle()
{
	do
	:: event != EVENT_NONE ->
		find_row();
		event = EVENT_NONE;
		if
		:: action != 0 ->
			if
			:: next != step -> timer = 0; step = next
			:: else
			fi;
			do_action()
		:: else
		fi
	:: else -> break
	od
}

/* ---- a verdict ---- */

/* The sync that it waits for is back; the guest is looked at once more, on the loop, in one go. */
inline judge()
{
	checking = 0;
	if
	:: step == STEP_HELD ->
		if
		:: !IS(SIZE_NOT_LOOKED_AT) -> observe()
		:: else
		fi;
		if
		:: !c_tot && !c_gen && !c_agent && !gate_opened && !unreachable && !unwatched ->
			/* proceed */
			g_wrong = (h_tot != b_tot || h_gen != b_gen || g_seen || g_opened_before || g_blind ||
				   (g_moved && !MOVES && !OPENINGS));
			c_code { proceeds++; }
		:: else -> c_code { refusals++; }
		fi
	:: else
	fi;
	g_opened_before = 0
}

/* ---- the agent's answers ---- */

inline hear()
{
	a_heard = x_answer;
	if
	:: AGENT_FROZEN -> a_was_frozen = 1
	:: else
	fi;
	if
	:: step == STEP_HELD && !AGENT_HOLDS -> c_agent = 1
	:: else
	fi
}

/* ---- gate.c, a round trip and a hypercall at a time ---- */

inline go_on_after_cap()
{
	w_before = 0;
	if
	:: job == JOB_TAKE || w_order -> ended = E_DONE
	:: else -> pc = P_SYNC
	fi
}

inline gate_look_first()
{
	if
	:: guest != GUEST_OURS -> ended = E_GONE
	:: guest == GUEST_OURS && young -> ended = E_NOT_READY
	:: guest == GUEST_OURS -> m_max = h_max; m_cap = h_tot; w_cap = h_tot; pc = P_CLOSE
	fi
}

/* gate_check, in each transaction. The mistake: it was asked before, and not in it. */
#define STILL_THERE (guest == GUEST_OURS || (IS(CHECK_BEFORE) && guest != GUEST_NONE))

inline gate_take()
{
	round_trip();
	if
	:: lost
	:: !lost && !STILL_THERE -> ended = E_GONE
	:: else ->
		m_target = x_target; m_deferred = 0; m_past = 0; m_open = x_open; m_folder = x_folder;
		m_pin = ((w_pin && x_target == w_pin) -> PIN + w_pin : 0);
		x_folder = 0; x_open = 0;
		if
		:: IS(JOURNAL_LATE) -> pc = P_LATE
		:: else -> journal_write(0, m_pin, 0); x_target = EXPECTED; answer(); pc = P_CAP
		fi;
		m_taken = (ended == E_NONE)
	fi
}

inline gate_take_late()
{
	round_trip();
	if
	:: lost
	:: else -> journal_write(0, m_pin, 0); x_target = EXPECTED; pc = P_CAP
	fi
}

/* gate_look and gate_note_cap */
inline gate_note_cap()
{
	if
	:: guest != GUEST_OURS -> ended = E_GONE
	:: else ->
		w_before = h_max;
		r_tot = h_tot;
		g_moved = (step == STEP_BASELINING -> 0 : g_moved);
		if
		:: h_max == w_cap && OURS(h_max) -> go_on_after_cap()
		:: else ->
			n_max = m_max; n_cap = m_cap; n_past = m_past;
			m_max = (OURS(h_max) -> m_max : h_max);
			if
			:: w_cap != m_cap -> m_past = m_cap; m_cap = w_cap
			:: else
			fi;
			pc = P_SET;
			m_past = (IS(CAP_PAST_FORGOTTEN) -> 0 : m_past);
			if
			:: (m_max != n_max || m_cap != n_cap || m_past != n_past) && !IS(CAP_NOT_JOURNALLED) ->
				round_trip();
				if
				:: lost
				:: else -> journal_write(m_deferred, m_pin, m_request); answer()
				fi
			:: else
			fi;
			if
			:: ended != E_NONE && !IS(CAP_WRITE_LOST) -> m_max = n_max; m_cap = n_cap; m_past = n_past
			:: else
			fi
		fi
	fi
}

/* One step, although others may come between the look and the hypercall: there is no compare-and-set. */
inline gate_set_cap()
{
	if
	:: guest != GUEST_OURS -> ended = E_GONE
	:: guest == GUEST_OURS && h_max != w_before && !IS(MAX_NOT_LOOKED_AT) -> pc = P_CAP
	:: else -> h_max = w_cap; m_past = 0; go_on_after_cap()
	fi
}

/* What a call begins with that finds a doubt: gate_resolve. */
inline gate_resolve()
{
	round_trip();
	if
	:: lost
	:: !lost && !j_there && (!m_taken || m_doubt == PERHAPS_RESTORED) ->
		if
		:: job == JOB_RESTORE -> ended = E_DONE
		:: else -> pc = P_READ
		fi
	:: !lost && j_there && m_taken -> pc = P_LEARN
	:: else ->
		if
		:: j_there -> journal_read()
		:: else
		fi;
		m_doubt = SURE;
		pc = (job == JOB_RESTORE -> P_MAX : P_READ)
	fi
}

/* gate_learn_deferred: the pin is in the target, so the wish that was written before is the latest. */
inline gate_learn()
{
	round_trip();
	if
	:: lost
	:: else ->
		if
		:: (x_target -> x_target == j_pin : !m_deferred) && (j_deferred || !IS(WISH_LEARNT_BY_HALF)) ->
			m_deferred = j_deferred
		:: else
		fi;
		m_pin = j_pin; m_request = j_request;
		if
		:: !IS(CAP_WRITE_LOST) -> m_max = j_max; m_cap = j_cap; m_past = j_past
		:: else
		fi;
		m_doubt = SURE;
		pc = (job == JOB_RESTORE -> P_MAX : P_READ)
	fi
}

/* gate_is_in_order, its first question: who wrote the target? */
inline gate_read()
{
	round_trip();
	w_order = 0;
	if
	:: lost
	:: !lost && x_target == EXPECTED -> pc = P_PERMS
	:: else ->
		if
		:: x_target -> m_deferred = x_target; r_deferred = 1
		:: else
		fi;
		pc = ((x_target && m_pin && !w_put) -> P_PUT_BACK : P_CAP)
	fi;
	w_cap = ((pc == P_CAP && !w_cap) -> m_cap : w_cap)
}

/* The others. */
inline gate_perms()
{
	if
	:: w_open == m_window && (w_pin == 0 || PIN + w_pin == m_pin) ->
		round_trip();
		w_order = (!lost && x_open == (m_window && m_open) && !x_folder)
	:: else
	fi;
	pc = P_CAP;
	w_cap = (w_cap -> w_cap : m_cap)
}

/* gate_put_back: the pin over what somebody else wrote, before anything else. */
inline gate_put_back()
{
	round_trip();
	if
	:: lost
	:: !lost && !STILL_THERE -> ended = E_GONE
	:: else ->
		n_deferred = (x_target != EXPECTED -> x_target : m_deferred);
		journal_write(n_deferred, m_pin, m_request);
		x_target = m_pin;
		answer();
		m_deferred = (ended == E_NONE -> n_deferred : m_deferred);
		w_put = 1;
		pc = P_READ
	fi
}

inline gate_sync()
{
	round_trip();
	if
	:: lost
	:: !lost && !STILL_THERE -> ended = E_GONE
	:: else ->
		differs = (x_target != EXPECTED);
		/* What no pin has taken the place of is the latest wish. */
		n_deferred = (differs -> x_target : ((m_pin || IS(WISH_TAKEN_BACK)) -> m_deferred : 0));
		n_pin = (w_pin -> PIN + w_pin : m_pin);
		r_deferred = (r_deferred || differs);
		r_reopened = (r_reopened || x_folder || x_open != (m_window && m_open));
		if
		:: IS(PIN_NOT_JOURNALLED) && differs -> journal_write(n_deferred, m_pin, m_request)
		:: !IS(PIN_NOT_JOURNALLED) && (differs || n_pin != m_pin || n_deferred != m_deferred) ->
			journal_write(n_deferred, n_pin, m_request)
		:: else
		fi;
		x_folder = 0; x_open = (w_open && m_open);
		x_target = (n_pin -> n_pin : x_target);
		answer();
		if
		:: ended == E_NONE -> m_deferred = n_deferred; m_pin = n_pin; m_window = w_open; ended = E_DONE
		:: else
		fi
	fi
}

inline agent_ask()
{
	round_trip();
	if
	:: lost
	:: !lost && !(STILL_THERE || IS(STRANGER_ASKED)) -> ended = E_GONE
	:: !lost && (guest == GUEST_NONE || !AGENT) -> ended = E_NOBODY
	:: else ->
		if
		:: !IS(REQUEST_NOT_JOURNALLED) -> journal_write(m_deferred, m_pin, a_seq)
		:: else
		fi;
		x_request = a_seq; a_event = 1;
		answer();
		if
		:: ended == E_NONE -> m_request = a_seq; ended = E_DONE
		:: else
		fi
	fi
}

inline agent_renew()
{
	round_trip();
	if
	:: lost
	:: !lost && x_request == a_seq -> a_event = 1; ended = E_DONE
	:: else -> a_lost = 1; ended = E_DONE
	fi
}

/* gate_restore: max_pages first. */
inline gate_restore_max()
{
	if
	:: guest != GUEST_OURS -> pc = P_DROP
	:: else ->
		h_max = ((m_cap && OURS(h_max)) -> m_max : h_max);
		pc = P_RESTORE
	fi
}

inline put_all_back()
{
	x_folder = m_folder;
	if
	:: x_target != EXPECTED -> m_deferred = x_target /* written since: it stays */
	:: x_target == EXPECTED && m_pin -> x_target = WANTED
	:: else
	fi;
	x_open = m_open;
	x_request = (m_request -> 0 : x_request)
}

inline gate_restore()
{
	round_trip();
	if
	:: lost
	:: !lost && !STILL_THERE -> pc = P_DROP
	:: !lost && STILL_THERE && IS(DROPPED_FIRST) && j_there -> journal_drop()
	:: else -> put_all_back(); journal_drop(); answer(); ended = (ended == E_NONE -> E_DONE : ended)
	fi
}

inline gate_drop()
{
	round_trip();
	if
	:: lost
	:: else -> journal_drop(); answer(); ended = (ended == E_NONE -> E_DONE : ended)
	fi
}

/* A guest's layout that cannot be read just now, or not at all, is a mishap. */
inline survey_p2m()
{
	b_gen = h_gen;
	if
	:: survey = SURVEY_STANDS
	:: MISHAPS -> survey = SURVEY_MAY_PASS
	:: MISHAPS -> survey = SURVEY_UNREADABLE
	fi;
	ended = E_DONE
}

/* What an earlier daemon left. */
inline recover()
{
	notice = 0;
	round_trip();
	if
	:: lost
	:: !lost && j_there -> journal_read(); job = JOB_RECOVER; pc = P_MAX
	:: else -> pc = P_IDLE
	fi;
	ended = E_NONE
}

/* ---- jobs that are back ---- */

inline heed_notice()
{
	if
	:: notice ->
		notice = 0;
		if
		:: LIVE -> touched = 1; unwatched = !IS(BLIND_TIME_FORGOTTEN); unreachable = 1
		:: else
		fi
	:: else
	fi
}

inline name_event()
{
	if
	:: job == JOB_RENEW -> event = EVENT_NONE
	:: job == JOB_SURVEY -> event = EVENT_SURVEYED
	:: else ->
		if
		:: ended == E_DONE && (r_deferred || r_reopened) -> event = EVENT_DISTURBED
		:: ended == E_DONE && !r_deferred && !r_reopened -> event = EVENT_DONE
		:: ended == E_LOST || ended == E_REFUSED -> event = EVENT_FAILED
		:: ended == E_GONE -> event = EVENT_GONE
		:: ended == E_NOT_READY -> event = EVENT_NOT_READY
		:: ended == E_NOBODY -> event = EVENT_ANSWERED
		fi
	fi;
	if /* going on only to be stopped at the next turn would show the guest another pin for nothing */
	:: stop_asked && LIVE && event != EVENT_GONE && event != EVENT_NONE -> stop_asked = 0; event = EVENT_STOP
	:: else
	fi
}

inline take_in_job()
{
	unreachable = (job == JOB_SYNC -> ended != E_DONE : unreachable);
	gate_opened = ((step == STEP_HELD && r_reopened && !IS(OPENING_FORGOTTEN)) -> 1 : gate_opened);
	if
	:: IS(COMMIT_LOST)
	:: ended == E_LOST && job == JOB_RESTORE -> m_doubt = PERHAPS_RESTORED
	:: ended == E_LOST && (job == JOB_TAKE || job == JOB_SYNC || job == JOB_ASK) -> m_doubt = PERHAPS_CHANGED
	:: else
	fi;
	if
	:: a_seq && ended == E_DONE && (job == JOB_SYNC || job == JOB_ASK) -> hear()
	:: else
	fi
}

inline job_back()
{
	pc = P_IDLE;
	if
	:: !IS(JOBS_BEFORE_NOTICES) -> heed_notice()
	:: else
	fi;
	take_in_job();
	name_event();
	was_job = job; ended = E_NONE;
	forget_job();
	handle();
	r_deferred = 0; r_reopened = 0; r_tot = 0; survey = SURVEY_STANDS;
	if
	:: was_job == JOB_SYNC && checking && pc == P_IDLE -> judge()
	:: was_job == JOB_SYNC && checking && pc != P_IDLE -> checking = 0; g_opened_before = 0
	:: else
	fi
}

inline recovery_back()
{
	pc = (ended == E_DONE -> P_IDLE : P_BOOT); /* and again, a second later */
	ended = E_NONE;
	forget_job();
	forget_session()
}

/* ---- the daemon ---- */

#define READY (pc == P_IDLE && !notice && !(stop_asked && LIVE))
#define SEES_SOMETHING (guest != GUEST_OURS || s_tot != h_tot || (step == STEP_HELD && !c_gen && h_gen != b_gen) || \
	(m_taken && h_max != m_cap && !touched))

inline look_at_guest()
{
	if
	:: guest != GUEST_OURS -> event = EVENT_GONE
	:: else ->
		observe();
		touched = (touched || (m_taken && h_max != m_cap))
	fi
}

inline begin()
{
	sessions++;
	over = 0;
	step = STEP_GATING;
	s_tot = h_tot;
	if
	:: REQUIRE & 1 -> require = ANY_GATE
	:: REQUIRE & 2 -> require = ANY_SETTLED
	:: REQUIRE & 4 -> require = ANY_AGENT
	fi;
	event = EVENT_BEGIN
}

inline die()
{
	kills++;
	over = 1;
	forget_job();
	forget_session();
	pc = P_DOWN; conn = 0; notice = 0
}

proctype daemon()
{
	do
	/* what the worker does */
	:: atomic {
		if
		:: pc == P_TAKE -> gate_look_first()
		:: pc == P_CLOSE -> gate_take()
		:: pc == P_LATE -> gate_take_late()
		:: pc == P_CAP -> gate_note_cap()
		:: pc == P_SET -> gate_set_cap()
		:: pc == P_RESOLVE -> gate_resolve()
		:: pc == P_LEARN -> gate_learn()
		:: pc == P_READ -> gate_read()
		:: pc == P_PERMS -> gate_perms()
		:: pc == P_PUT_BACK -> gate_put_back()
		:: pc == P_SYNC -> gate_sync()
		:: pc == P_MAX -> gate_restore_max()
		:: pc == P_RESTORE -> gate_restore()
		:: pc == P_DROP -> gate_drop()
		:: pc == P_ASK -> agent_ask()
		:: pc == P_RENEW -> agent_renew()
		:: pc == P_SURVEY -> survey_p2m()
		fi;
		if
		:: ended != E_NONE && job != JOB_RECOVER -> job_back()
		:: ended != E_NONE && job == JOB_RECOVER -> recovery_back()
		:: else
		fi;
		SHOW("worker")
	   }
	:: atomic { pc == P_BOOT && conn -> recover(); SHOW("recovery") }
	/* what the loop does while nothing is away */
	:: atomic { pc == P_IDLE && notice -> heed_notice(); pc = (step == STEP_GONE -> P_BOOT : P_IDLE); SHOW("notice") }
	:: atomic {
		if
		:: pc == P_IDLE && !notice && stop_asked && LIVE ->
			stop_asked = 0;
			if
			:: IS(THAW_FORGOTTEN) -> forget_session()
			:: else -> event = EVENT_STOP
			fi
		:: READY && timer -> timer = 0; event = EVENT_TIMER
		:: READY && touched -> touched = 0; event = EVENT_TOUCHED
		:: READY && check_asked ->
			if
			:: IS(GATE_NOT_LOOKED_AT) -> check_asked = 0; g_opened_before = g_opened; judge()
			:: else -> event = EVENT_TOUCHED
			fi
		:: READY && retry_asked -> retry_asked = 0; event = (step == STEP_HELD -> EVENT_RETRY : EVENT_NONE)
		:: READY && LIVE && SEES_SOMETHING -> look_at_guest()
		:: READY && step == STEP_SETTLING && s_tot == h_tot -> event = EVENT_STILL
		:: READY && FREEZING && MISHAPS -> event = EVENT_TIMEOUT
		:: READY && LIVE && a_seq && x_answer != a_heard -> hear(); event = EVENT_ANSWERED
		:: READY && LIVE && a_seq && x_request == a_seq && !a_event -> job = JOB_RENEW; pc = P_RENEW
		:: READY && step == STEP_GONE && sessions < SESSIONS && guest == GUEST_OURS -> begin()
		fi;
		handle();
		check_asked = (step == STEP_HELD -> check_asked : 0);
		SHOW("loop")
	   }
	/* and while something is */
	:: atomic { pc > P_BOOT && LIVE && guest == GUEST_OURS && SEES_SOMETHING -> look_at_guest(); SHOW("poll") }
	:: atomic { pc == P_SURVEY && a_seq && x_answer != a_heard -> hear(); SHOW("poll") }
	/* what is done to it */
	:: atomic { pc == P_IDLE && LIVE && conn && losses < LOSSES -> lose(); SHOW("lost") }
	:: atomic {
		kills < KILLS && pc != P_DOWN && (step != STEP_GONE || job != JOB_NONE || j_there) ->
		die();
		SHOW("killed")
	   }
	:: atomic { pc == P_DOWN && !NEVER_AGAIN -> pc = P_BOOT; conn = 1 }
	od
}

proctype xenstored()
{
	do
	:: atomic { !conn && pc != P_DOWN -> conn = 1; notice = 1; SHOW("back") }
	od
}

/* ---- everybody else ---- */

#define TELL_DAEMON touched = (touched || (conn && LIVE))

proctype toolstack()
{
	byte wanted;

	do
	:: atomic {
		writes < WRITES && guest == GUEST_OURS ->
		writes++;
		if
		:: wanted = 1
		:: wanted = 2
		fi;
		h_max = TOOLSTACK_MAX(wanted); wish_max = h_max;
		SHOW("toolstack")
	   }
	   atomic {
		if
		:: guest == GUEST_OURS -> x_target = wanted; wish_target = wanted; TELL_DAEMON
		:: guest == GUEST_OURS && MISHAPS -> /* removed and made again: it inherits its folder's permissions */
			x_target = wanted; wish_target = wanted; x_open = x_folder; TELL_DAEMON
		:: else
		fi;
		wanted = 0;
		SHOW("toolstack")
	   }
	od
}

proctype caller()
{
	do
	:: atomic { LIVE && !stop_asked -> stop_asked = 1; over = 1 }
	:: atomic { step == STEP_HELD && !check_asked && !checking && verdicts < VERDICTS -> verdicts++; check_asked = 1 }
	:: atomic { step == STEP_HELD && !retry_asked && retries < RETRIES -> retries++; retry_asked = 1 }
	:: atomic { young -> young = 0 }
	:: atomic { openings < OPENINGS && guest == GUEST_OURS && (!x_open || !x_folder) ->
		openings++;
		x_open = 1;
		if
		:: x_folder = 1
		:: true
		fi;
		g_opened = 1;
		TELL_DAEMON;
		SHOW("opened")
	   }
	od
}

proctype balloon()
{
	do
	:: atomic { x_open && x_target && g_knows != NUMBER(x_target) -> g_knows = NUMBER(x_target); SHOW("guest") }
	:: atomic { guest == GUEST_OURS && h_tot > g_knows && !a_frozen -> h_tot--; g_moved = LIVE; SHOW("guest") }
	:: atomic { guest == GUEST_OURS && h_tot < g_knows && h_tot < ROOM(h_max) && !a_frozen ->
		h_tot++;
		g_moved = LIVE;
		SHOW("guest")
	   }
	:: atomic { guest == GUEST_OURS && moves < MOVES && LIVE ->
		moves++;
		if
		:: h_gen++
		:: h_tot > 1 -> h_tot--
		:: h_tot < ROOM(h_max) -> h_tot++
		fi;
		g_moved = 1;
		SHOW("guest")
	   }
	od
}

proctype agent()
{
	do
	:: atomic { !a_frozen && x_request && x_request != a_ended ->
		a_event = 0;
		if
		:: a_frozen = x_request; a_lease = 1; x_answer = ANSWER_FROZEN + x_request
		:: a_ended = x_request; x_answer = ANSWER_REFUSED + x_request
		:: a_ended = x_request; x_answer = ANSWER_THAWED + x_request
		:: x_answer != ANSWER_BUSY + x_request -> x_answer = ANSWER_BUSY + x_request
		fi
	   }
	:: atomic { a_frozen && x_request == a_frozen && a_event -> a_event = 0; a_lease = 1 }
	/* Its balloon driver is disturbed, again and again. */
	:: atomic { a_frozen && x_request == a_frozen && IS(LEASE_BY_LOOK) -> a_lease = 1 }
	:: atomic { a_frozen && a_lease && !a_event -> a_lease = 0 }
	:: atomic { a_frozen && (x_request != a_frozen || !a_lease) ->
		a_ended = a_frozen; x_answer = ANSWER_THAWED + a_frozen; a_frozen = 0; a_lease = 0; a_event = 0
	   }
	od
}

/* The domain goes, and another guest gets its number. */
proctype reaper()
{
	atomic {
		guest = GUEST_NONE;
		x_target = 0; x_open = 0; x_folder = 0; x_request = 0; x_answer = 0; a_frozen = 0; h_max = 0; h_tot = 0;
		TELL_DAEMON;
		SHOW("gone")
	}
	atomic {
		guest = GUEST_OTHER;
		x_target = 2; x_open = 1; x_folder = 1; h_max = TOOLSTACK_MAX(2); h_tot = 2;
		SHOW("replaced")
	}
}

init
{
	c_code {
		atexit(report);
		now.KILLS = given("KILLS"); now.LOSSES = given("LOSSES"); now.REFUSALS = given("REFUSALS");
		now.WRITES = given("WRITES"); now.OPENINGS = given("OPENINGS"); now.MOVES = given("MOVES");
		now.VERDICTS = given("VERDICTS"); now.RETRIES = given("RETRIES"); now.SESSIONS = given("SESSIONS");
		now.REQUIRE = given("REQUIRE"); now.BALLOON = given("BALLOON"); now.AGENT = given("AGENT");
		now.DEATH = given("DEATH"); now.REST = given("REST"); now.MISHAPS = given("MISHAPS");
		now.NEVER_AGAIN = given("NEVER_AGAIN"); now.MISTAKE = given("MISTAKE");
	};
	atomic {
		if /* at rest, or on the way to its target */
		:: h_tot = 1
		:: h_tot = 2
		fi;
		young = MISHAPS;
		run daemon();
		run caller();
		if
		:: LOSSES -> run xenstored()
		:: else
		fi;
		if
		:: WRITES -> run toolstack()
		:: else
		fi;
		if
		:: BALLOON || MOVES -> run balloon()
		:: else
		fi;
		if
		:: AGENT -> run agent()
		:: else
		fi;
		if
		:: DEATH -> run reaper()
		:: else
		fi
	}
}

/* ---- what is claimed ---- */

#define THAWED (guest != GUEST_OURS || (x_open && x_folder && !x_request && h_max > 15 && !a_frozen))
#define AS_WISHED (x_target == wish_target && h_max == wish_max && x_open && x_folder)

/* 1: whoever's session is over thaws, and stays so. */
ltl thaws { [] (over -> <> (THAWED && !j_there)) }
/* 1: the guest's agent does not even need a daemon for that. */
ltl agent_thaws { [] (over -> <> (a_frozen == 0)) }
/* 2: without a journal everything is as the toolstack wished it last. */
ltl wishes { [] ((guest == GUEST_OURS && !j_there) -> AS_WISHED) }
/* 2: and so it ends. */
ltl ends_as_wished { [] (over -> <> (guest != GUEST_OURS || (!j_there && AS_WISHED))) }
/* 2: another guest of the same number is not touched. */
#define UNTOUCHED (x_target == 2 && x_open && x_folder && !x_request && h_max == TOOLSTACK_MAX(2))
ltl strangers { [] (guest == GUEST_OTHER -> UNTOUCHED) }
/* 3: no proceed after a change since the baseline, or when nobody looked: judge() says what counts. */
ltl proceed { [] (!g_wrong) }
