"""How many streams a machine carries: what each stream needs, what there is, and which bound is hit first.

    probe.py    opens every source for a few seconds: codec, size, rate, keyframes, bit rate, CPU
    here.py     measures this machine: the engines, a worker's memory
    demand.py   what a stream needs of each resource                            pure
    cards.py    what graphics cards have, from vendors' figures                 pure
    supply.py   what a server has                                               pure
    fit.py      shares, how many more fit, the first bound                      pure
    money.py    servers, watts and cost, beside a core a stream                 pure
    plan.py     the above, for a config

Every number says where it comes from: ``measured`` here and now, ``derived`` from a vendor's figure,
``given`` on the command line, ``config``, or ``assumed``."""
