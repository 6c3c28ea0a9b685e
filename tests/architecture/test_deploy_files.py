"""What we hand to users as an example has to work as it stands."""

from pathlib import Path

from device_agent.settings import load

ROOT = Path(__file__).parents[2]


def test_the_example_agent_settings_are_accepted():
    settings = load(ROOT / "deploy" / "agent.toml")
    assert (settings.device, settings.fleet, settings.device_class) == ("node-1", "acme", "aarch64")
    assert settings.broker.tls


def test_every_link_in_the_front_documents_leads_somewhere():
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/adr/README.md"):
        document = ROOT / name
        for target in _links(document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{name} links to {target}"


def _links(text: str) -> list[str]:
    pieces = text.split("](")[1:]
    targets = [piece.split(")")[0].split("#")[0] for piece in pieces]
    return [target for target in targets if target and "://" not in target]
