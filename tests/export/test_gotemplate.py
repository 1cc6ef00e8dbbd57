"""The evaluator of Go's templates, against texts worked by hand from pkg.go.dev/text/template, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.export.gotemplate import render

TALK = [{"Role": "user", "Content": "Hi"}, {"Role": "assistant", "Content": "Yes"}, {"Role": "user", "Content": "Go"}]
DATA: dict[str, Any] = {"System": "Be brief.", "Empty": "", "Messages": TALK, "None": [], "Flag": True, "Zero": 0}


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("plain {text} }}", "plain {text} }}"),
        ("{{ .System }}", "Be brief."),
        ("a {{- .System -}} b", "aBe brief.b"),
        ("a \n\t{{- .System }} b", "aBe brief. b"),
        ("a {{ .System -}} \n b", "a Be brief.b"),
        ("a{{/* not shown */}}b", "ab"),
        ("a {{- /* not shown */ -}} b", "ab"),
        ('{{ "a\\n\\"b" }}{{ `c\\n` }}', 'a\n"bc\\n'),
        ('{{ "}}" }}', "}}"),
        ("{{ if .Empty }}yes{{ else }}no{{ end }}", "no"),
        ("{{ if .Zero }}yes{{ else if .Flag }}flag{{ else }}no{{ end }}", "flag"),
        ("{{ if .Zero }}a{{ else if .Empty }}b{{ else if .None }}c{{ else }}d{{ end }}!", "d!"),
        ("{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}", "user:Hi;assistant:Yes;user:Go;"),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Content }}{{ end }}", "0Hi1Yes2Go"),
        ("{{ range $m := .Messages }}{{ $m.Content }}{{ end }}", "HiYesGo"),
        ("{{ range .None }}x{{ else }}empty{{ end }}", "empty"),
        ("{{ range .Messages }}{{ $.System }}{{ end }}", "Be brief." * 3),
        ('{{ range .Messages }}{{ if eq .Role "user" "tool" }}u{{ else }}a{{ end }}{{ end }}', "uau"),
        ("{{ $x := 1 }}{{ range .Messages }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ range .Messages }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ("{{ and .Flag .System }}|{{ and .Empty .System }}|{{ or .Empty .System }}", "Be brief.||Be brief."),
        ("{{ not .Empty }} {{ ne .Zero 1 }} {{ gt 2 1 }} {{ le 2 1 }}", "true true true false"),
        ("{{ len .Messages }}{{ len (slice .Messages 1) }}{{ len (slice .Messages 0 1) }}", "321"),
        ('{{ if and (eq (len .Messages) 3) (eq (index .Messages 0).Role "user") }}ok{{ end }}', "ok"),
        (
            "{{ range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}{{ .Content }}{{ end }}{{ end }}",
            "Go",
        ),
    ],
)
def test_a_template_is_written_as_go_writes_it(template: str, written: str) -> None:
    assert render(template, DATA) == written


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Missing }}",
        "{{ $unknown }}",
        "{{ $unknown = 1 }}",
        "{{ printf .System }}",
        "{{ .System | len }}",
        "{{ with .System }}{{ . }}{{ end }}",
        "{{ if .System }}",
        "{{ .System",
        "{{ end }}",
        "{{ .Messages }}",
        "{{ (len .Messages }}",
    ],
)
def test_what_is_beyond_our_part_of_the_language_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        render(template, DATA)
