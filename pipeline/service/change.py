"""What a new config asks for, stream by stream, compared with the one that is running."""

from dataclasses import dataclass

from pipeline.config import Config, Stream

AT_START = (
    "node", "state_dir", "device", "engine", "workers", "gpus", "shutdown_s", "redis", "outbox", "batch",
)  # fmt: skip
"""Keys that hold from start to end of a run."""
OPENING = ("sources", "limits")
"""Keys by which every source is opened: a stream that was let in under others starts anew."""
SCREENING = frozenset({"sampling", "policy", "model"})
"""Keys of a stream that change how it is screened, not what it is."""


@dataclass(frozen=True, slots=True)
class Change:
    """From one config to the next. ``config`` is to be in force: the new one, with what holds from the start
    as it was; ``restart_needed`` names the keys that had to stay.

    ``rescreened`` streams are the same under other sampling, policy or models; ``replaced`` ones have only
    their id in common with what ran under it."""

    config: Config
    added: tuple[Stream, ...] = ()
    removed: tuple[str, ...] = ()
    rescreened: tuple[Stream, ...] = ()
    replaced: tuple[Stream, ...] = ()
    restart_needed: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """How many streams of each sort."""
        names = ("added", "removed", "rescreened", "replaced")
        return {name: len(getattr(self, name)) for name in names}


def difference(old: Config, new: Config) -> Change:
    """What has to be done to streams when ``new`` follows ``old``."""
    kept = {key: getattr(old, key) for key in AT_START if getattr(old, key) != getattr(new, key)}
    config = new.model_copy(update=kept)
    before = {stream.id: stream for stream in old.streams}
    after = {stream.id: stream for stream in config.streams}
    both = [stream for stream in config.streams if stream.id in before]
    opened_alike = all(getattr(old, key) == getattr(new, key) for key in OPENING)
    replaced = [s for s in both if not opened_alike or _identity(s) != _identity(before[s.id])]
    rescreened = [
        s for s in both if s not in replaced and _screening(config, s) != _screening(old, before[s.id])
    ]
    return Change(
        config,
        added=tuple(stream for stream in config.streams if stream.id not in before),
        removed=tuple(name for name in before if name not in after),
        rescreened=tuple(rescreened),
        replaced=tuple(replaced),
        restart_needed=tuple(kept),
    )


def _identity(stream: Stream) -> Stream:
    """A stream without what only says how it is screened."""
    return stream.model_copy(update=dict.fromkeys(SCREENING))


def _screening(config: Config, stream: Stream) -> tuple[object, ...]:
    """How a stream is screened: its own keys over the config's."""
    return config.sampling_of(stream), config.policy_info(stream), config.models_of(stream)
