------------------------------ MODULE Backstop ------------------------------
(***************************************************************************)
(* The protocol by which Backstop carries one saga to its end: a journal   *)
(* that only grows, coordinators that can die, freeze and wake up again,   *)
(* a network that loses, doubles and delays, and participants that answer, *)
(* refuse or fall silent.                                                  *)
(*                                                                         *)
(* It promises that a saga ends with all of its steps done, or with all of *)
(* them undone, or waits for a person; see "What must hold" at the end.    *)
(*                                                                         *)
(* README.md beside this file says how it is checked, which function of    *)
(* the program each definition stands for, and what is left out.           *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
  Coordinators,   \* the names under which the saga may be driven; none is used twice
  First,          \* the coordinator that has accepted it
  Shape,          \* which definition it follows: "chain", "fork", "join" or "pivot"
  Barrier,        \* participants keep their first answer and refuse what comes after its undoing
  Late,           \* a message may arrive after its sender has given it up, or twice; and a
                  \* coordinator may freeze between its look at the lease and the sending
  Faults          \* how many things go wrong at most: refusals, lost and late messages,
                  \* ended leases, commits of unknown fate, cancellations, a person's retries

\* The guards of the protocol. All are TRUE in Backstop; a check that sets one of them to FALSE
\* must find a counterexample, or the check is worth nothing.
CONSTANTS
  JournalFirst,   \* nothing outside follows from a decision that is not on disk
  GuardedSeq,     \* an event goes in only as the next number of its saga
  DecideOnce,     \* a saga that has been decided is not decided again
  ReverseOrder,   \* a step is undone only after all that built on it
  PivotHolds,     \* nobody turns back while the pivot may have taken effect
  LostCounts,     \* after a takeover, what may have been sent counts as sent
  DoubtStays      \* an answer speaks for its own attempt only

-----------------------------------------------------------------------------
(* The definition: steps in the order of their listing, and what they wait for. *)

Listing ==
  CASE Shape = "chain" -> <<"debit", "credit">>
    [] Shape = "fork"  -> <<"debit", "credit", "fee">>
    [] Shape = "join"  -> <<"debit", "hold", "credit">>
    [] Shape = "pivot" -> <<"reserve", "pay", "notify">>

Steps == {Listing[i] : i \in DOMAIN Listing}

Kind == [s \in Steps |-> CASE s = "pay" -> "PIVOT"
                           [] s = "notify" -> "RETRIABLE"
                           [] OTHER -> "COMPENSATABLE"]

DependsOn ==
  CASE Shape = "chain" -> [debit |-> {}, credit |-> {"debit"}]
    [] Shape = "fork"  -> [debit |-> {}, credit |-> {"debit"}, fee |-> {"debit"}]
    [] Shape = "join"  -> [debit |-> {}, hold |-> {}, credit |-> {"debit", "hold"}]
    [] Shape = "pivot" -> [reserve |-> {}, pay |-> {"reserve"}, notify |-> {"pay"}]

\* All that builds on a step, near or far. (No shape is deeper than three.)
Near(s) == {t \in Steps : s \in DependsOn[t]}
Descendants == [s \in Steps |-> Near(s) \cup UNION {Near(t) : t \in Near(s)}]

-----------------------------------------------------------------------------
(* THE RULES. What a saga is, how an event changes it, and what it wants done. *)
(* They know nothing of coordinators, networks or time.                        *)

Final == {"SUCCEEDED", "ROLLED_BACK"}
AtRest == Final \cup {"NEEDS_INTERVENTION"}

IsBusy(saga) == \E s \in Steps : saga.branch[s] \in {"RUNNING", "COMPENSATING"}

\* Nothing of this branch is left to undo, or to learn.
IsUndone(saga, s) == saga.branch[s] \in {"COMPENSATED", "SKIPPED", "FAILED"}

NeedsPerson(saga, s) ==
  \/ saga.branch[s] = "STUCK"
  \/ saga.branch[s] = "IN_DOUBT" /\ Kind[s] \in {"PIVOT", "RETRIABLE"}
  \/ saga.branch[s] = "FAILED" /\ Kind[s] = "RETRIABLE"

IsPastPivot(saga) == \E s \in Steps : Kind[s] = "PIVOT" /\ saga.branch[s] = "SUCCEEDED"
IsPivotOpen(saga) == \E s \in Steps : Kind[s] = "PIVOT" /\ saga.branch[s] \in {"RUNNING", "IN_DOUBT"}

\* Whose turn it is: forwards by dependency, backwards against it.
Advance(saga) ==
  LET b == saga.branch
      MayRun(s) == b[s] = "PENDING" /\ \A d \in DependsOn[s] : b[d] = "SUCCEEDED"
      MayUndo(s) == /\ b[s] \in {"SUCCEEDED", "IN_DOUBT"} /\ Kind[s] = "COMPENSATABLE"
                    /\ ReverseOrder => \A t \in Descendants[s] : IsUndone(saga, t)
  IN CASE saga.state = "RUNNING" ->
            [saga EXCEPT !.branch = [s \in Steps |-> IF MayRun(s) THEN "RUNNING" ELSE b[s]]]
       [] saga.state = "ROLLING_BACK" ->
            [saga EXCEPT !.branch = [s \in Steps |-> IF MayUndo(s) THEN "COMPENSATING" ELSE b[s]]]
       [] OTHER -> saga

\* The saga right after its first event.
Begun ==
  Advance([seq |-> 1, owner |-> First, state |-> "RUNNING",
           branch |-> [s \in Steps |-> "PENDING"],
           doubt  |-> [s \in Steps |-> FALSE],   \* some attempt may have taken effect, and nothing settled it
           acted  |-> [s \in Steps |-> 0],       \* attempts of the action that have ended
           undid  |-> [s \in Steps |-> 0]])      \* attempts of the compensation that have ended

\* One event changes the saga; there is no other way that it changes.
Changed(saga, e) ==
  CASE e.kind = "Adopted" -> [saga EXCEPT !.owner = e.by]
    [] e.kind = "ActionSucceeded" ->
         [saga EXCEPT !.branch[e.step] = "SUCCEEDED", !.doubt[e.step] = FALSE, !.acted[e.step] = @ + 1]
    [] e.kind = "ActionFailed" ->
         LET doubt == (DoubtStays /\ saga.doubt[e.step] /\ ~e.settles) \/ e.doubt
         IN [saga EXCEPT !.doubt[e.step] = doubt, !.acted[e.step] = @ + 1,
                         !.branch[e.step] = IF e.again THEN @ ELSE IF doubt THEN "IN_DOUBT" ELSE "FAILED"]
    [] e.kind = "RollbackDecided" ->
         [saga EXCEPT !.state = "ROLLING_BACK",
                      !.branch = [s \in Steps |-> IF @[s] = "PENDING" THEN "SKIPPED" ELSE @[s]]]
    [] e.kind = "CompensationSucceeded" ->
         [saga EXCEPT !.branch[e.step] = "COMPENSATED", !.undid[e.step] = @ + 1]
    [] e.kind = "CompensationFailed" ->
         [saga EXCEPT !.branch[e.step] = IF e.again THEN @ ELSE "STUCK", !.undid[e.step] = @ + 1]
    [] e.kind = "InterventionOpened" -> [saga EXCEPT !.state = "NEEDS_INTERVENTION"]
    [] e.kind = "BranchRetried" ->
         LET undoing == saga.branch[e.step] = "STUCK"
         IN [saga EXCEPT !.state = IF undoing THEN "ROLLING_BACK" ELSE "RUNNING",
                         !.branch[e.step] = IF undoing THEN "COMPENSATING" ELSE "RUNNING"]
    [] e.kind = "Succeeded"  -> [saga EXCEPT !.state = "SUCCEEDED"]
    [] e.kind = "RolledBack" -> [saga EXCEPT !.state = "ROLLED_BACK"]

Apply(saga, e) == Advance([Changed(saga, e) EXCEPT !.seq = @ + 1])

\* The saga that a whole journal tells of. Its first event has made it what Begun says.
RECURSIVE Replay(_, _, _)
Replay(saga, events, i) == IF i > Len(events) THEN saga ELSE Replay(Apply(saga, events[i]), events, i + 1)

\* What should be going on outside, read off the saga.
Attempt(saga, s, phase) ==
  [step |-> s, phase |-> phase, number |-> 1 + IF phase = "action" THEN saga.acted[s] ELSE saga.undid[s]]
Running(saga) == {Attempt(saga, s, "action") : s \in {s \in Steps : saga.branch[s] = "RUNNING"}}
Undoing(saga) == {Attempt(saga, s, "compensation") : s \in {s \in Steps : saga.branch[s] = "COMPENSATING"}}

Calls(saga) == IF saga.state = "ROLLING_BACK" THEN Undoing(saga) ELSE Running(saga) \cup Undoing(saga)
Awaited(saga) == IF saga.state = "ROLLING_BACK" THEN Running(saga) ELSE {}   \* sent no more, only heard

\* A turn in the making: the saga as it will be, and the events that make it so.
Turn(saga) == [saga |-> saga, events |-> <<>>]
Event(kind, s) == [kind |-> kind, step |-> s]
Failure(kind, s, doubt, settles, again) ==
  [kind |-> kind, step |-> s, doubt |-> doubt, settles |-> settles, again |-> again]
Emit(turn, by, e) ==
  LET f == [x \in DOMAIN e \cup {"by", "seq"} |->
              CASE x = "by" -> by [] x = "seq" -> turn.saga.seq + 1 [] OTHER -> e[x]]
  IN [saga |-> Apply(turn.saga, f), events |-> Append(turn.events, f)]

\* A forward path that has ended without success decides about the saga.
AfterForwardEnd(turn, by) ==
  IF /\ turn.saga.state = "RUNNING"
     /\ \E s \in Steps : turn.saga.branch[s] \in {"FAILED", "IN_DOUBT"} /\ ~NeedsPerson(turn.saga, s)
  THEN Emit(turn, by, Event("RollbackDecided", "-")) ELSE turn

\* What follows of itself: the end, or an intervention.
Conclude(turn, by) ==
  LET saga == turn.saga
  IN CASE saga.state = "RUNNING" /\ \A s \in Steps : saga.branch[s] = "SUCCEEDED" ->
            Emit(turn, by, Event("Succeeded", "-"))
       [] saga.state = "ROLLING_BACK" /\ \A s \in Steps : IsUndone(saga, s) ->
            Emit(turn, by, Event("RolledBack", "-"))
       [] /\ saga.state \in {"RUNNING", "ROLLING_BACK"} /\ ~IsBusy(saga)
          /\ \E s \in Steps : NeedsPerson(saga, s) ->
            Emit(turn, by, Event("InterventionOpened", "-"))
       [] OTHER -> turn

Answered(saga, by, e) == Conclude(AfterForwardEnd(Emit(Turn(saga), by, e), by), by)

\* An action may be sent again unless it may have taken effect at a participant that would do it twice.
\* (Whether it then is sent again, the retry policy says; here both are tried.)
MayResend(saga, doubt) == saga.state # "ROLLING_BACK" /\ (doubt => Barrier)

ActionFailures(saga, s, doubt, settles) ==
  LET stays == (saga.doubt[s] /\ ~settles) \/ doubt
  IN {Failure("ActionFailed", s, doubt, settles, again) :
        again \in IF MayResend(saga, stays) THEN BOOLEAN ELSE {FALSE}}

\* Taking over: what the one before may have sent has lost its answer, so it counts as sent.
RECURSIVE Lost(_, _, _)
Lost(turn, by, i) ==
  IF i > Len(Listing) THEN turn
  ELSE LET s == Listing[i]
           state == turn.saga.branch[s]
           e == IF state = "RUNNING"
                THEN Failure("ActionFailed", s, TRUE, FALSE, MayResend(turn.saga, TRUE))
                ELSE Failure("CompensationFailed", s, TRUE, FALSE, TRUE)
       IN Lost(IF state \in {"RUNNING", "COMPENSATING"} THEN Emit(turn, by, e) ELSE turn, by, i + 1)

Adopted(saga, by) ==
  LET mine == Emit(Turn(saga), by, Event("Adopted", "-"))
  IN IF saga.state \in Final \/ ~LostCounts THEN mine
     ELSE Conclude(AfterForwardEnd(Lost(mine, by, 1), by), by)

MayCancel(saga) ==
  /\ DecideOnce => saga.state = "RUNNING"
  /\ PivotHolds => ~IsPastPivot(saga) /\ ~IsPivotOpen(saga)

-----------------------------------------------------------------------------
(* THE WORLD. *)

VARIABLES
  journal,   \* the events on disk, in order: the only truth
  lease,     \* lease[c]: by the database's clock c's lease is good
  mem,       \* mem[c]: the saga as c was last told it is on disk, or None
  ahead,     \* ahead[c]: what c has decided and does not know to be on disk, or Nothing
  out,       \* out[c]: the attempts that c has sent or answered itself
  calls,     \* calls under way
  replies,   \* replies under way
  books,     \* what each step did at its participant
  faults     \* how much may still go wrong

vars == <<journal, lease, mem, ahead, out, calls, replies, books, faults>>

None == [seq |-> 0]
Nothing == [at |-> 0, events |-> <<>>, tried |-> FALSE]

Init ==
  /\ journal = <<[kind |-> "Started", step |-> "-", by |-> First, seq |-> 1]>>
  /\ lease = [c \in Coordinators |-> TRUE]
  /\ mem = [c \in Coordinators |-> IF c = First THEN Begun ELSE None]
  /\ ahead = [c \in Coordinators |-> Nothing]
  /\ out = [c \in Coordinators |-> {}]
  /\ calls = {} /\ replies = {}
  /\ books = [s \in Steps |-> [effect |-> 0, said |-> "nothing", undone |-> FALSE]]
  /\ faults \in 0..Faults   \* so that each standstill shows also where no further fault could end it

OnDisk == Replay(Begun, journal, 2)
Fault == faults > 0 /\ faults' = faults - 1

(* A coordinator decides; the decision is written; only then anything follows from it. *)

Latest(c) == IF ahead[c] = Nothing THEN mem[c] ELSE ahead[c].saga
MayDecide(c) == mem[c] # None /\ ~ahead[c].tried

\* Decisions may pile up before they are written: a success that nobody waits for rides along.
Decide(c, turn) ==
  /\ MayDecide(c)
  /\ ahead' = [ahead EXCEPT ![c] =
       [at |-> IF @ = Nothing THEN mem[c].seq ELSE @.at, events |-> @.events \o turn.events,
        saga |-> turn.saga, tried |-> FALSE]]

Forget(c) ==
  /\ mem' = [mem EXCEPT ![c] = None]
  /\ ahead' = [ahead EXCEPT ![c] = Nothing]
  /\ out' = [out EXCEPT ![c] = {}]
  /\ replies' = {r \in replies : r.to # c}

\* The guarded append: it goes in as the next number, or it was lost to another writer. One whose
\* fate was unknown is written again word for word, and finds its own rows there.
Write(c) ==
  LET a == ahead[c]
      fits == ~GuardedSeq \/ Len(journal) = a.at
      isThere == a.tried /\ SubSeq(journal, a.at + 1, Len(journal)) = a.events
  IN /\ a # Nothing
     /\ IF fits \/ isThere
        THEN /\ journal' = IF isThere THEN journal ELSE journal \o a.events
             /\ mem' = [mem EXCEPT ![c] = a.saga]
             /\ ahead' = [ahead EXCEPT ![c] = Nothing]
             /\ out' = [out EXCEPT ![c] = @ \cap (Calls(a.saga) \cup Awaited(a.saga))]
             /\ UNCHANGED replies
        ELSE Forget(c) /\ UNCHANGED journal
     /\ UNCHANGED <<lease, calls, books, faults>>

\* It is on disk, but the answer is lost.
WriteUnheard(c) ==
  /\ ahead[c] # Nothing /\ ~ahead[c].tried /\ Len(journal) = ahead[c].at
  /\ Fault
  /\ journal' = journal \o ahead[c].events
  /\ ahead' = [ahead EXCEPT ![c].tried = TRUE]
  /\ UNCHANGED <<lease, mem, out, calls, replies, books>>

(* Leases. *)

\* It is dead, frozen or cut off, for good: one that comes back does so under a new name, and some other
\* is there. What it had sent and nobody has seen yet is lost, or comes late.
LeaseEnds(c) ==
  /\ lease[c] /\ \E d \in Coordinators \ {c} : lease[d]
  /\ Fault
  /\ lease' = [lease EXCEPT ![c] = FALSE]
  /\ calls' = IF Late THEN calls ELSE {m \in calls : m.from # c}
  /\ UNCHANGED <<journal, mem, ahead, out, replies, books>>

\* It notices, or was dead all along. Until then it goes on with a stale memory.
Drops(c) ==
  /\ ~lease[c] /\ (mem[c] # None \/ ahead[c] # Nothing)
  /\ Forget(c)
  /\ UNCHANGED <<journal, lease, calls, books, faults>>

\* Adopting is an append like any other: of two that try, one is lost.
Adopt(c) ==
  /\ lease[c] /\ mem[c] = None /\ ahead[c] = Nothing
  /\ LET saga == OnDisk
         turn == Adopted(saga, c)
     IN /\ ~lease[saga.owner] /\ saga.state \notin AtRest
        /\ ahead' = [ahead EXCEPT ![c] =
          [at |-> Len(journal), events |-> turn.events, saga |-> turn.saga, tried |-> FALSE]]
  /\ UNCHANGED <<journal, lease, mem, out, calls, replies, books, faults>>

(* What a coordinator does outside. *)

View(c) == IF JournalFirst THEN mem[c] ELSE Latest(c)

Send(c) ==
  /\ mem[c] # None /\ (lease[c] \/ Late)
  /\ \E a \in Calls(View(c)) \ out[c] :
       /\ out' = [out EXCEPT ![c] = @ \cup {a}]
       /\ calls' = calls \cup {[attempt |-> a, from |-> c, clock |-> View(c).seq + 1,
                                request |-> [d \in DependsOn[a.step] |-> View(c).acted[d]]]}
  /\ UNCHANGED <<journal, lease, mem, ahead, replies, books, faults>>

\* It could not be sent: no connection, no permit, an open breaker. (A compensation waits instead.)
NotSent(c) ==
  /\ mem[c] # None /\ Fault
  /\ \E a \in (Calls(mem[c]) \cap Running(Latest(c))) \ out[c] :
       /\ out' = [out EXCEPT ![c] = @ \cup {a}]
       /\ \E e \in ActionFailures(Latest(c), a.step, FALSE, FALSE) : Decide(c, Answered(Latest(c), c, e))
  /\ UNCHANGED <<journal, lease, mem, calls, replies, books>>

\* The rollback was faster: what has not gone out goes out no more.
Withdraw(c) ==
  /\ mem[c] # None
  /\ \E a \in Awaited(Latest(c)) \ out[c] :
       /\ out' = [out EXCEPT ![c] = @ \cup {a}]
       /\ Decide(c, Answered(Latest(c), c, Failure("ActionFailed", a.step, FALSE, FALSE, FALSE)))
  /\ UNCHANGED <<journal, lease, mem, calls, replies, books, faults>>

Expects(c, a) == a \in Running(Latest(c)) \cup Undoing(Latest(c))

\* An answer, and what it proves. A refusal settles earlier doubts only if the participant gives every
\* attempt the same answer.
Receive(c) ==
  /\ mem[c] # None
  /\ \E r \in replies :
       LET a == r.attempt
           saga == Latest(c)
           events == CASE a.phase = "action" /\ r.says = "done" -> {Event("ActionSucceeded", a.step)}
                       [] a.phase = "action" -> {Failure("ActionFailed", a.step, FALSE, Barrier, FALSE)}
                       [] r.says = "done" -> {Event("CompensationSucceeded", a.step)}
                       [] OTHER -> {Failure("CompensationFailed", a.step, FALSE, FALSE, again) : again \in BOOLEAN}
       IN /\ r.to = c /\ replies' = replies \ {r}
          /\ IF Expects(c, a) THEN \E e \in events : Decide(c, Answered(saga, c, e))
                              ELSE UNCHANGED ahead
  /\ UNCHANGED <<journal, lease, mem, out, calls, books, faults>>

\* No answer in time: nobody knows what came of it.
TimeOut(c) ==
  /\ mem[c] # None /\ Fault
  /\ \E a \in out[c] :
       LET failures == IF a.phase = "action" THEN ActionFailures(Latest(c), a.step, TRUE, FALSE)
                       ELSE {Failure("CompensationFailed", a.step, TRUE, FALSE, TRUE)}
       IN /\ Expects(c, a)
          /\ \E e \in failures : Decide(c, Answered(Latest(c), c, e))
          /\ replies' = {r \in replies : ~(r.to = c /\ r.attempt = a)}
          /\ calls' = IF Late THEN calls ELSE {m \in calls : ~(m.from = c /\ m.attempt = a)}
  /\ UNCHANGED <<journal, lease, mem, out, books>>

\* Somebody wants the saga undone, or its deadline has passed.
Cancel(c) ==
  /\ mem[c] # None /\ Fault
  /\ MayCancel(Latest(c))
  /\ Decide(c, Conclude(Emit(Turn(Latest(c)), c, Event("RollbackDecided", "-")), c))
  /\ UNCHANGED <<journal, lease, mem, out, calls, replies, books>>

\* A person has removed the obstacle and wants a branch tried again.
PersonRetries(c) ==
  /\ mem[c] # None /\ Fault
  /\ Latest(c).state = "NEEDS_INTERVENTION"
  /\ \E s \in Steps : /\ NeedsPerson(Latest(c), s)
                      /\ Decide(c, Answered(Latest(c), c, Event("BranchRetried", s)))
  /\ UNCHANGED <<journal, lease, mem, out, calls, replies, books>>

(* Participants. *)

\* What the participant may answer; one with a barrier has to stand by its first word.
Verdicts(m) ==
  LET b == books[m.attempt.step]
  IN CASE m.attempt.phase = "compensation" -> {"done", "refused"}
       [] Barrier /\ b.undone -> {"refused"}
       [] Barrier /\ b.said # "nothing" -> {b.said}
       [] OTHER -> {"done", "refused"}

Executed(m, verdict) ==
  LET b == books[m.attempt.step]
  IN CASE m.attempt.phase = "compensation" /\ verdict = "done" ->
            [b EXCEPT !.effect = 0, !.undone = Barrier]
       [] m.attempt.phase = "action" /\ (~Barrier \/ (b.said = "nothing" /\ ~b.undone)) ->
            [b EXCEPT !.effect = IF verdict = "done" THEN @ + 1 ELSE @,
                      !.said = IF Barrier THEN verdict ELSE @]
       [] OTHER -> b

Delivered(m, verdict) ==
  /\ books' = [books EXCEPT ![m.attempt.step] = Executed(m, verdict)]
  /\ replies' = IF mem[m.from] # None /\ Expects(m.from, m.attempt)
                THEN replies \cup {[attempt |-> m.attempt, to |-> m.from, says |-> verdict]}
                ELSE replies
  /\ UNCHANGED <<journal, lease, mem, ahead, out>>

Arrive ==
  \E m \in calls :
    /\ calls' = calls \ {m}
    /\ \E verdict \in Verdicts(m) :
         /\ Delivered(m, verdict)
         /\ IF verdict = "refused" /\ Cardinality(Verdicts(m)) > 1 THEN Fault ELSE UNCHANGED faults

\* It arrives, and will arrive once more.
ArriveTwice ==
  /\ Late /\ Fault
  /\ \E m \in calls : Delivered(m, IF "done" \in Verdicts(m) THEN "done" ELSE "refused")
  /\ UNCHANGED calls

-----------------------------------------------------------------------------
\* What happens of itself, as long as anything can.
Progress ==
  \/ Arrive
  \/ \E c \in Coordinators : Write(c) \/ Drops(c) \/ Adopt(c) \/ Send(c) \/ Withdraw(c) \/ Receive(c)

GoesWrong ==
  \/ ArriveTwice
  \/ \E c \in Coordinators :
       WriteUnheard(c) \/ LeaseEnds(c) \/ NotSent(c) \/ TimeOut(c) \/ Cancel(c) \/ PersonRetries(c)

IsOver == journal[Len(journal)].kind \in {"Succeeded", "RolledBack", "InterventionOpened"}
Rests == IsOver /\ UNCHANGED vars   \* so that only a standstill before the end counts as a deadlock

Next == Progress \/ GoesWrong \/ Rests
Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* WHAT MUST HOLD. The numbers are those of the design. *)

At(kind, s) == {i \in DOMAIN journal : journal[i].kind = kind /\ journal[i].step = s}
Has(kind, s) == At(kind, s) # {}
Decided(kind) == Has(kind, "-")

\* Read off the journal, and not off the rules: did it happen, or may it have?
MayHaveHappened(s) ==
  \/ Has("ActionSucceeded", s)
  \/ \E i \in At("ActionFailed", s) :
       journal[i].doubt /\ \A j \in At("ActionFailed", s) : j > i => ~journal[j].settles

IsAction(m) == m.attempt.phase = "action"
IsUndo(m) == m.attempt.phase = "compensation"

\* I1: it never both commits and compensates, and the decision never changes.
I1_DecidedOnce ==
  /\ ~(Decided("Succeeded") /\ Decided("RollbackDecided"))
  /\ Cardinality(At("RollbackDecided", "-")) <= 1
  /\ Decided("Succeeded") => \A s \in Steps : books[s].effect = 1

\* I2: it is never forgotten: while it is not at rest it wants something; an intervention has its reason.
I2_NeverForgotten ==
  LET saga == OnDisk
  IN CASE saga.state \in Final -> IsOver
       [] saga.state = "NEEDS_INTERVENTION" -> IsOver /\ \E s \in Steps : NeedsPerson(saga, s)
       [] OTHER -> ~IsOver /\ Calls(saga) \cup Awaited(saga) # {}

\* I3: what a coordinator was told is on disk is on disk, replays to what it remembers, and stays.
I3_NothingLost ==
  \A c \in Coordinators : mem[c] # None =>
    /\ mem[c].seq <= Len(journal)
    /\ mem[c].seq = Len(journal) => mem[c] = OnDisk
I3_OnlyGrows == [][SubSeq(journal', 1, Len(journal)) = journal]_journal

\* I4: no action is called before all that it depends on is durably done.
I4_AfterDependencies ==
  \A m \in calls : IsAction(m) => \A d \in DependsOn[m.attempt.step] : Has("ActionSucceeded", d)

\* I5: nothing is undone before all that built on it is undone.
I5_ReverseOrder ==
  \A m \in calls : IsUndo(m) =>
    \A t \in Descendants[m.attempt.step] : MayHaveHappened(t) => Has("CompensationSucceeded", t)

\* I6: what may have happened is undone, and only that; afterwards nothing is in force.
I6_UndoneIfItMayHaveHappened ==
  /\ \A m \in calls : IsUndo(m) => MayHaveHappened(m.attempt.step)
  /\ Decided("RolledBack") => \A s \in Steps :
       /\ MayHaveHappened(s) => Has("CompensationSucceeded", s)
       /\ books[s].effect = 0

\* And it stays undone, whatever arrives late.
I6_UndoneStaysUndone == \A s \in Steps : Has("CompensationSucceeded", s) => books[s].effect = 0

\* I7: no compensation before the decision is durable.
I7_DecidedBeforeUndoing == (\E m \in calls : IsUndo(m)) => Decided("RollbackDecided")

\* I8: after the pivot nothing is undone, and what is being undone never passes it.
I8_PivotHolds ==
  Decided("RollbackDecided") => \A s \in Steps : Kind[s] = "PIVOT" => books[s].effect = 0

\* I9: two calls with one key ask for the same thing.
I9_OneKeyOneRequest ==
  \A m, n \in calls :
    m.attempt.step = n.attempt.step /\ m.attempt.phase = n.attempt.phase => m.request = n.request

\* I10: each number is given once, by the one who owned the saga then or took it over with it.
I10_OneWriter ==
  \A i \in DOMAIN journal :
    /\ journal[i].seq = i
    /\ \/ journal[i].kind = "Adopted"
       \/ \E j \in 1..i : /\ journal[j].kind \in {"Started", "Adopted"} /\ journal[j].by = journal[i].by
                         /\ \A k \in j+1..i : journal[k].kind # "Adopted"

\* I11: the clock of a call is later than all that it builds on: forwards the successes, backwards the undoings.
I11_ClockFollowsOrder ==
  \A m \in calls :
    IF IsAction(m)
    THEN \A d \in DependsOn[m.attempt.step] : \A i \in At("ActionSucceeded", d) : i < m.clock
    ELSE \A t \in Descendants[m.attempt.step] : \A i \in At("CompensationSucceeded", t) : i < m.clock

\* What the money sees: with a barrier nothing is done twice, ever.
I12_NothingTwice == \A s \in Steps : books[s].effect <= 1

\* I2 once more, as a promise about time: whatever went wrong, in the end it rests for good, unless all
\* stop though something could be done. (That nothing could be done is what the check for deadlocks rules out.)
I2_EndsOrAsks == []<><<TRUE>>_vars => <>[]IsOver
=============================================================================
