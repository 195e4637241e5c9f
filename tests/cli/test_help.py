"""`--help` of every command at 80 columns, and how paths, counts and the next command are printed."""

from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.output import count, say_next, shown

COMMANDS = sorted(getattr(typer.main.get_command(app), "commands", ()))


def help_of(*words: str) -> list[str]:
    done = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.exception
    return done.output.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_into_80_columns_and_breaks_no_word(command: str) -> None:
    lines = help_of(command)
    assert [line for line in lines if len(line) > 80] == []
    assert [line for line in lines if line.endswith("-")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_values_in_words_and_not_as_python_types(command: str) -> None:
    text = "\n".join(help_of(command))
    for type_name in ("<bool>", "<str>", "<int>", "<int ", "<path>", "<float", "<list"):
        assert type_name not in text


def test_choices_stay_on_one_line() -> None:
    assert any("<flair19|flair15|flair12|cosia|flair-hub>" in line for line in help_of("evaluate"))


def test_the_list_of_commands_has_one_line_each_under_a_heading() -> None:
    lines = help_of()
    for command in set(COMMANDS) - {"requeue"}:
        (line,) = (line for line in lines if line.startswith(f"  {command} "))
        assert len(line) <= 80
    assert {"Get:", "Map:", "Publish:", "Judge:", "Ask:", "Train:", "Cluster:", "Exit codes:"} <= set(lines)
    assert not any("requeue" in line for line in lines)


def test_paths_are_shown_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "products" / "report.html") == "products/report.html"
    assert shown(tmp_path.parent / "elsewhere") == str(tmp_path.parent / "elsewhere")
    assert shown("https://server/map.tif") == "https://server/map.tif"


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    say_next("run", Path("my campaign.yaml"), "--domain", "D034_2021", "--force")
    assert capsys.readouterr().out == "next: landcover run 'my campaign.yaml' --domain D034_2021 --force\n"


def test_counts_are_singular_or_plural() -> None:
    assert [count(n, "tile") for n in (0, 1, 2)] == ["0 tiles", "1 tile", "2 tiles"]


def completed(*words: str) -> list[str]:
    """What a shell offers for the last of these words."""
    typed = {"COMP_WORDS": " ".join(("landcover", *words)), "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(app, [], prog_name="landcover", env={**typed, "_LANDCOVER_COMPLETE": "complete_bash"})
    return done.output.split()


def test_the_shell_completes_what_a_campaign_has(tmp_path: Path) -> None:
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text(
        "name: test\ncatalog: catalog\nmodel: {weights: w.pth}\n"
        "domains: [{name: D034_2021}, {name: D030_2024}]\noutput: {national: national}\n"
    )
    for made in ("catalog/D034_2021/D034_2021-0595-6890.json", "catalog/D030_2024/D030_2024-0600-6890.json"):
        (tmp_path / made).parent.mkdir(parents=True)
        (tmp_path / made).touch()
    for number in (3, 12):
        (tmp_path / f"national/editions/{number:06d}").mkdir(parents=True)
    assert completed("plan", str(campaign), "--domain", "D03") == ["D034_2021", "D030_2024"]
    assert completed("run", str(campaign), "--tile", "059") == ["0595-6890"]
    assert completed("editions", str(campaign), "--restore", "1") == ["12"]
    assert completed("plan", str(tmp_path / "absent.yaml"), "--domain", "D03") == []


def test_the_shell_completes_recipes_and_clusters() -> None:
    assert "flair-inc_rgb_12cl_resnet34-unet" in completed("init", "delivery", "--recipe", "flair-inc_rgb_")
    assert "jean-zay-a100" in completed("submit", "campaign.yaml", "--cluster", "jean")
