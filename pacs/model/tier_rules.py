"""The rules by which studies move between tiers: what a rule is, whether it is sound, and whether it is due. Pure.

Tier 1 is fast, tier 2 large, tier 3 far. Rules move down only; what is asked for comes up by itself (recall). A study
that is pinned or not settled never moves, whatever a rule says; of the others the one that was used longest ago goes
first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal

from pacs.errors import UsageError
from pacs.model.schedule import Window, is_open

AgeOf = Literal["arrival", "study date"]
#: The rule that is in force until one of its name is added: its marks are settings.
DEFAULT = "default"
#: A tier that is this full [percent] is moved from whatever the hour, and as fast as it goes.
FULL_PERCENT = 95
_LOW_PERCENT_MIN = 5
_BYTES_PER_S_MIN = 1 << 20

#: Defined terms of Modality (PS3.3 C.7.3.1.1.1), the retired ones too: archives hold them.
_MODALITIES = """
    ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DMS DG DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS
    KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE
    RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA
    XAPROTOCOL XC
    AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF
"""
MODALITIES = frozenset(_MODALITIES.split())


@dataclass(frozen=True)
class Rule:
    """What moves from one tier to a lower one, and when. A condition that is not given does not bind."""

    name: str
    from_tier: int
    to_tier: int
    #: Moves when the tier is fuller than high, until it is at low [percent].
    high_percent: float | None = None
    low_percent: float | None = None
    #: Moves what is older, counted from its last arrival or its study date [days].
    age_days: float | None = None
    age_of: AgeOf = "arrival"
    #: Moves what nobody has retrieved for so long, nor has arrived [days].
    unused_days: float | None = None
    modalities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    #: Copies, and leaves the copy above in service: two copies, until another rule takes the upper one.
    keep: bool = False
    windows: tuple[str, ...] = ()
    bytes_per_s_max: int | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Rule:
        """A rule from its values, as `values` gives them and the journal holds them."""
        names = {field.name for field in fields(cls)}
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names}
        return cls(**given)

    @property
    def values(self) -> dict[str, Any]:
        """What can be written as JSON: only what is not as it is without being said."""
        plain = Rule(self.name, self.from_tier, self.to_tier)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name in ("name", "from_tier", "to_tier") or value != getattr(plain, name)
        }

    @property
    def words(self) -> str:
        """The rule in words, for a person."""
        parts = [f"tier {self.from_tier} → {self.to_tier}"]
        if self.high_percent is not None:
            parts.append(f"from {self.high_percent:g} % full down to {self.low_percent:g} %")
        if self.age_days is not None:
            parts.append(f"{self.age_days:g} days after {'its ' if self.age_of == 'study date' else ''}{self.age_of}")
        if self.unused_days is not None:
            parts.append(f"unused for {self.unused_days:g} days")
        for what, names in (("modality", self.modalities), ("device", self.devices), ("tenant", self.tenants)):
            if names:
                parts.append(f"{what} {' or '.join(names)}")
        if self.keep:
            parts.append("the copy above stays")
        if self.windows:
            parts.append("within " + " or ".join(self.windows))
        if self.bytes_per_s_max is not None:
            parts.append(f"at most {self.bytes_per_s_max / 1e6:g} MB/s")
        return ", ".join(parts)


def default_rule(high_percent: float, low_percent: float) -> Rule:
    """The rule of the settings: tier 1 to 2 by its marks."""
    return Rule(DEFAULT, 1, 2, high_percent, low_percent)


def in_force(rules: Iterable[Rule], default: Rule) -> list[Rule]:
    """The rules in the order in which they are followed: upper tiers first, so that room is made where objects arrive;
    then as they were added. The default is left out if a rule of its name was added."""
    added = list(rules)
    if all(rule.name != DEFAULT for rule in added):
        added.append(default)
    return sorted(added, key=lambda rule: (rule.from_tier, rule.to_tier))


@dataclass(frozen=True)
class Known:
    """What a rule may name: tiers with a volume in service, modalities and devices of this archive, tenants."""

    tiers: Collection[int]
    modalities: Collection[str]
    devices: Collection[str]
    tenants: Collection[str]


def require_sound(rule: Rule, others: Sequence[Rule], known: Known) -> None:
    """Raise UsageError, with what to do, for a rule that cannot be followed, or that would do harm."""
    _require_way(rule, known)
    _require_numbers(rule)
    _require_names(rule, known)
    for words in rule.windows:
        Window.of(words)
    _require_tier_stays_used(rule)
    for other in others:
        _require_agreement(rule, other)


def _require_way(rule: Rule, known: Known) -> None:
    if not (1 <= rule.from_tier <= 3 and 1 <= rule.to_tier <= 3):
        raise UsageError("There are tiers 1, 2 and 3.")
    if rule.to_tier == rule.from_tier:
        raise UsageError("A rule moves from one tier to another. To empty a volume: `pacs volume drain`.")
    if rule.to_tier < rule.from_tier:
        raise UsageError(
            "A rule moves down only: one that moves up would bring back what another sends away, for ever. "
            "What is asked for comes back by itself; to keep a study on its tier: `pacs study pin`."
        )
    for tier in (rule.from_tier, rule.to_tier):
        if tier not in known.tiers:
            raise UsageError(f"There is no volume of tier {tier} in service. Add one first: `pacs volume add`.")


def _require_numbers(rule: Rule) -> None:
    high, low = rule.high_percent, rule.low_percent
    if (high is None) != (low is None):
        raise UsageError("A high mark needs a low mark, and a low one a high one: --high 80 --low 70.")
    if high is not None and low is not None and not (low < high <= 100):
        raise UsageError("The low mark lies below the high one, and that at 100 at most: --high 80 --low 70.")
    for days in (rule.age_days, rule.unused_days):
        if days is not None and not 0 <= days < 100_000:
            raise UsageError("Days are counted from 0.")
    if rule.bytes_per_s_max is not None and rule.bytes_per_s_max < _BYTES_PER_S_MIN:
        raise UsageError("A bound of less than 1 MB/s would let the tier above fill up. Give more, or a window.")
    if rule.keep and high is not None:
        raise UsageError("A rule that keeps the copy above makes no room: leave out either --keep or the marks.")


def _require_names(rule: Rule, known: Known) -> None:
    for modality in rule.modalities:
        if modality not in MODALITIES and modality not in known.modalities:
            raise UsageError(
                f"{modality} is no modality of PS3.3 C.7.3.1.1.1, and none that this archive holds. "
                "`pacs study list` shows studies; CT, MR, US, DX are modalities."
            )
    for device in rule.devices:
        if device not in known.devices:
            raise UsageError(f"There is no device {device}. `pacs device list` shows all.")
    for tenant in rule.tenants:
        if tenant not in known.tenants:
            raise UsageError(f"There is no tenant {tenant}. There are: {', '.join(sorted(known.tenants))}.")


def _require_tier_stays_used(rule: Rule) -> None:
    """A rule must not send down all that arrives as soon as it settles: then reading goes to the slow tier, always."""
    if rule.low_percent is not None:
        if rule.low_percent < _LOW_PERCENT_MIN:
            raise UsageError(
                f"A low mark of {rule.low_percent:g} % would empty tier {rule.from_tier}. "
                f"Give {_LOW_PERCENT_MIN} or more; to empty a volume: `pacs volume drain`."
            )
        return
    if rule.keep or rule.modalities or rule.devices:
        return
    if max(rule.age_days or 0, rule.unused_days or 0) < 1:
        raise UsageError(
            f"The rule would empty tier {rule.from_tier}: it holds for each study as soon as it is here. "
            "Give marks (--high, --low), an age or a time unused of a day or more, a modality or a device."
        )


def _require_agreement(rule: Rule, other: Rule) -> None:
    """Two rules must not both be the one that keeps a tier within marks, and say other marks."""
    same = (rule.from_tier, rule.to_tier, rule.modalities, rule.devices, rule.tenants) == (
        other.from_tier, other.to_tier, other.modalities, other.devices, other.tenants,
    )  # fmt: skip
    if other.name == rule.name or not same:
        return
    if rule.high_percent is not None and other.high_percent is not None:
        raise UsageError(
            f"Rule {other.name} says other marks for the same tier: {other.words}. "
            f"Remove it first: `pacs tier rule remove {other.name}`."
            if other.name != DEFAULT
            else f"The default rule says other marks for the same tier: {other.words}. Add this one as {DEFAULT}."
        )
    if rule.values | {"name": ""} == other.values | {"name": ""}:
        raise UsageError(f"Rule {other.name} says just that already.")


@dataclass(frozen=True)
class Fill:
    """How full a tier is. free_bytes is None if one of its volumes knows no bound."""

    used_bytes: int
    free_bytes: int | None
    #: What has left already, and whose files go when their grace time is over.
    leaving_bytes: int = 0

    @property
    def percent(self) -> float:
        """How full it will be when what has left is gone."""
        if self.free_bytes is None:
            return 0.0
        total = self.used_bytes + self.free_bytes
        return 100 * max(0, self.used_bytes - self.leaving_bytes) / total if total else 0.0

    @property
    def full_percent(self) -> float:
        """How full it is now."""
        total = self.used_bytes + (self.free_bytes or 0)
        return 100 * self.used_bytes / total if self.free_bytes is not None and total else 0.0

    def bytes_above(self, percent: float) -> int:
        """How much has to leave yet, so that it is as full as this."""
        total = self.used_bytes + (self.free_bytes or 0)
        if self.free_bytes is None:
            return 0
        return max(0, int(self.used_bytes - self.leaving_bytes - total * percent / 100))


@dataclass(frozen=True)
class Look:
    """What a rule says of its tier now: whether anything may move, how much at most (None: all it is about), and
    why or why not."""

    is_due: bool
    size_bytes_max: int | None
    why: str
    #: Neither window nor bandwidth count: the tier is full.
    is_urgent: bool = False


def look(rule: Rule, fill: Fill, local: datetime) -> Look:
    """What a rule says at a local time of a tier that is so full."""
    if rule.high_percent is None or rule.low_percent is None:
        if not is_open(rule.windows, local):
            return Look(False, None, f"waits for its window, {' or '.join(rule.windows)}")
        return Look(True, None, "all that it is about")
    tier = f"tier {rule.from_tier} is {fill.percent:.0f} % full"
    if fill.percent < rule.high_percent:
        return Look(False, 0, f"{tier}; it moves from {rule.high_percent:g} %")
    is_urgent = fill.full_percent >= FULL_PERCENT
    if not is_urgent and not is_open(rule.windows, local):
        return Look(False, 0, f"{tier}; waits for its window, {' or '.join(rule.windows)}")
    why = f"{tier}; it moves from {rule.high_percent:g} % down to {rule.low_percent:g} %"
    return Look(True, fill.bytes_above(rule.low_percent), why, is_urgent)
