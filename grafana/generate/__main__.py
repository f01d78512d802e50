"""`python -m grafana.generate`: write every generated file."""

from pathlib import Path

from grafana.generate import generated_files

ROOT = Path(__file__).resolve().parents[2]

for name, text in generated_files().items():
    path = ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
