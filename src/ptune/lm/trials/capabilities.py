"""What an LM can do with prompts, found by trying it when it is loaded, in one record that can be
printed."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Capability:
    """One thing that an LM can do, or not.

    Attributes:
        present: whether it can.
        note: how it does it, or why it cannot.
    """

    present: bool
    note: str = ""

    def __bool__(self) -> bool:
        return self.present


@dataclass(frozen=True)
class Capabilities:
    """What an LM can do.

    Attributes:
        left_padding: rows may be padded on the left, as text that a causal LM goes on with is.
        packing: rows may run one behind the other, without padding.
        kept_contexts: what stands before soft tokens may be computed once while a prompt is
            trained.
        prefix: deep prefixes enter, by the route that the note names.
        writing: text may be written for several rows in one call.
        gradients: soft tokens, and a prefix where it enters, get the gradients that train them.
    """

    left_padding: Capability
    packing: Capability
    kept_contexts: Capability
    prefix: Capability
    writing: Capability
    gradients: Capability

    def named(self) -> list[tuple[str, Capability]]:
        """Each with its name in words."""
        return [(field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.named())
        lines = [
            f"{name:<{width}}  {'yes' if capability else 'no '}  {capability.note}".rstrip()
            for name, capability in self.named()
        ]
        return "\n".join(lines)
