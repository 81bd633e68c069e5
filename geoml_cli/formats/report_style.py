"""The look of the report: one style sheet, light and dark, wide and narrow, screen and paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b2126; --soft: #5b6670; --line: #dde2e6; --paper: #fff;
  --ground: #f4f6f7; --accent: #1f6f8b; --warn: #8a5a00; --warn-bg: #fff5df; --bad: #a01327; --bad-bg: #fdecee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaed; --soft: #9aa5ae; --line: #333c44; --paper: #1a2026;
  --ground: #12171b; --accent: #6cc0dc; --warn: #f1c66d; --warn-bg: #33290f; --bad: #ff9aa6; --bad-bg: #3a161c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 1.08rem; margin: 0 0 4px; }
p { margin: 0 0 10px; max-width: 72ch; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px; margin-top: 18px; }
.top { display: flex; flex-wrap: wrap; gap: 22px 44px; align-items: flex-end; }
.big { font-size: 3.4rem; font-weight: 650; line-height: 1; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.mid { font-size: 1.7rem; font-weight: 600; line-height: 1.1; font-variant-numeric: tabular-nums; }
.name { color: var(--soft); font-size: .9rem; }
.note { border-left: 4px solid var(--accent); padding: 8px 14px; margin-top: 14px; background: var(--ground); border-radius: 0 6px 6px 0; }
.note.warn { border-color: var(--warn); background: var(--warn-bg); }
.note.bad { border-color: var(--bad); background: var(--bad-bg); }
.scroll { overflow-x: auto; margin-top: 10px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; width: 100%; }
th, td { padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th[scope=row], .left { text-align: left; color: var(--ink); }
th[scope=row] { white-space: nowrap; vertical-align: top; }
.matrix { width: auto; }
.matrix td { min-width: 58px; text-align: center; }
.matrix thead th { text-align: center; max-width: 150px; overflow-wrap: break-word; }
.matrix thead th:first-child { vertical-align: bottom; text-align: left; }
.matrix .sum { color: var(--soft); background: none; border-left: 1px solid var(--line); }
.matrix tr.sums td, .matrix tr.sums th { border-top: 1px solid var(--soft); color: var(--soft); }
.matrix td.hit { font-weight: 650; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 3px; margin-right: .5em; border: 1px solid rgba(128,128,128,.5); vertical-align: -.06em; }
.classes td { min-width: 138px; width: 21%; }
.classes td.few { min-width: 0; width: auto; }
.bar { display: block; width: 100%; height: 10px; margin-top: 4px; }
.bar .track { fill: rgba(128,128,128,.16); }
.bar .whisker { stroke: var(--ink); stroke-width: 1.4; fill: none; vector-effect: non-scaling-stroke; }
.bar .halo { stroke: var(--paper); stroke-width: 4; fill: none; vector-effect: non-scaling-stroke; opacity: .8; }
.interval { color: var(--soft); font-size: .82em; white-space: nowrap; }
.maps { display: flex; flex-wrap: wrap; gap: 18px; margin-top: 12px; }
figure { margin: 0; flex: 1 1 320px; max-width: 640px; min-width: 0; }
.map { display: block; width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line);
  background: repeating-conic-gradient(rgba(128,128,128,.16) 0 25%, transparent 0 50%) 0 0/14px 14px; }
.map image { image-rendering: pixelated; }
.legend { display: flex; flex-wrap: wrap; align-content: flex-start; gap: 5px 18px; margin: 0; padding: 0; list-style: none; font-size: .92rem; flex: 1 1 180px; }
.maps.one .legend { flex-direction: column; flex-wrap: nowrap; }
.legend svg { width: 1.05em; height: 1.05em; margin-right: .45em; vertical-align: -.18em; background: #7d868c; border-radius: 3px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 8px 0 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: .86em ui-monospace, "DejaVu Sans Mono", Menlo, monospace; overflow-wrap: anywhere; }
@media (max-width: 560px) { .maps.one .legend { flex-flow: row wrap; }  main { padding: 16px 10px 40px; } section { padding: 16px 14px; } .big { font-size: 2.7rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } th, td { padding: 5px 7px; } }
@media print { body { background: none; } section { break-inside: avoid; border: 0; padding: 8px 0; } }
"""
