"""Seeded simulation: endpoints, servers, and a network that fails between them.

The ledgers, links and sessions are those that run in a device; only what carries out
their actions (sockets, clocks, actors) is replaced. A run is a function of its setup:
the event heap is ordered by virtual time, and every choice comes from one generator.

What is modelled. A lane is a TCP connection: in order, and when it is lost all that is
in flight on it is lost. The dialling side is told of that, the listening side is not
(a ROUTER does not say whose connection went). The two lanes of a session have delays
of their own, so they overtake each other. Every device has a clock of its own, which
begins anywhere and runs up to 0.1 % fast or slow. Some faults go beyond what TCP does
to a lane: they lose, double and reorder messages.

What is promised, and checked while it runs:

S1  a stream's outcomes are 0, 1, 2 …, once each, in order, by the row they name
S2  tokens under way are within the credit, iterations admitted within the window
S3  nothing is computed for a segment that was not offered
S4  nothing that belongs to an older session has an effect
S5  tokens are retained for at most `window` iterations
S6  nothing is unaccounted for; `promise.judge` says so of the outcomes alone, too
S7  a peer is used only when it has answered on the data lane
S8  a server that said goodbye takes nobody new
B1  a branch is started at most once per iteration
B2  no branch plays where a gate had the answer
M1  as many branches are started at once as the mode of redundancy says
M2  no more frames are hedged than their bounded share
C1  how a peer's clock differs is known to within the error that is told
D1  nothing is decided later than its deadline, but for a turn of the loop
R1  what a server passed on and lost is refused at once
R2  a server that cannot pass tokens on says so, and none come
A1  a token gets one answer, whoever computes it
T1  what is fired as one is of one segment, and no more than may be
T2  sessions take turns
T3  nothing waits for its turn longer than it has to
L1  when the faults are over, links come back, and with them full answers
L2  a frame is not dropped while a sound branch was there for it
L3  a device waits when there is nothing to do
L4  what a server had under way when it said goodbye is still waited for
"""
