"""The style sheet of a report: one column, light or dark as the reader's system is, good on paper.

Nothing is fetched: fonts are the system's own.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbfa; --card: #ffffff; --ink: #1c2126; --soft: #5b6670; --line: #dfe3e6;
  --accent: #0b6e8a; --bar: #cfe6ec; --bar-edge: #0b6e8a; --warn: #9a4a00; --warn-paper: #fff4e6;
  --a: #0072b2; --b: #d55e00; --c: #00875f; --d: #a3468c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --card: #1b2126; --ink: #e6eaed; --soft: #9aa7b1; --line: #313a42;
    --accent: #6cc5dd; --bar: #24424c; --bar-edge: #6cc5dd; --warn: #ffb866; --warn-paper: #33271a;
    --a: #56b4e9; --b: #f0883e; --c: #3ecf9f; --d: #d98cc4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; margin: 44px 0 12px; }
h3 { font-size: 1rem; margin: 22px 0 10px; color: var(--soft); font-weight: 600; }
p { margin: 8px 0; max-width: 46rem; }
p.soft, .soft { color: var(--soft); }
nav { margin: 14px 0 0; font-size: 0.9rem; display: flex; flex-wrap: wrap; gap: 4px 18px; }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 14px;
  margin: 26px 0 0; }
.tile, .panel, figure { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.tile { padding: 16px 18px; } .verdicts { margin: 18px 0 0; }
.tile .name { color: var(--soft); font-size: 0.88rem; }
.tile .value { font-size: 1.75rem; font-weight: 650; line-height: 1.3; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile .range { color: var(--soft); font-size: 0.88rem; font-variant-numeric: tabular-nums; }
.panel { padding: 6px 18px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.94rem; }
th, td { text-align: left; padding: 8px 14px 8px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tr:last-child > th, tr:last-child > td { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; font-size: 0.86rem; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
table.counts { width: auto; } table.counts th, table.counts td { padding-right: 32px; }
td.bar, th.bar { width: 150px; }
.facts td { overflow-wrap: anywhere; }
.facts th { width: 15rem; color: var(--soft); font-weight: 500; }
tr.first > th, tr.first > td { border-top: 2px solid var(--line); }
.interval { display: block; width: 150px; height: 14px; margin-top: 5px; }
.interval .track { fill: var(--line); } .interval .span { fill: var(--bar-edge); opacity: 0.4; }
.interval .mean { fill: var(--bar-edge); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 14px; }
.charts .panel { padding: 10px 12px; max-width: 640px; }
.reliability { max-width: 480px; }
.charts.small { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
section > .panel + .panel, section > .panel + .charts { margin-top: 14px; }
svg.chart { display: block; width: 100%; height: auto; font-family: inherit; }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1; }
.tick { fill: var(--soft); font-size: 13px; } .label { fill: var(--ink); font-size: 13px; }
.chart-title { fill: var(--ink); font-size: 15px; font-weight: 600; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.curve.line-a { stroke: var(--a); } .dot.line-a { fill: var(--a); }
.curve.line-b { stroke: var(--b); } .dot.line-b { fill: var(--b); }
.curve.line-c { stroke: var(--c); } .dot.line-c { fill: var(--c); }
.curve.line-d { stroke: var(--d); } .dot.line-d { fill: var(--d); }
.best { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.cell { fill: var(--bar-edge); } .on-cell { fill: var(--card); font-weight: 600; }
.cell-frame { fill: none; stroke: var(--line); }
.bin { fill: var(--bar-edge); opacity: 0.35; }
.ideal { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 14px; }
.figures.wide { grid-template-columns: 1fr; }
.figures.sheet { grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); }
.sheet figure { padding: 8px; } .sheet figcaption { font-size: 0.8rem; padding: 6px 2px 0; }
figure { margin: 0; padding: 12px; }
figure img { display: block; width: 100%; height: auto; border-radius: 4px; background: #fff; }
.slices { display: grid; border: 0; margin: 10px 0 0; padding: 0; min-width: 0;
  align-items: center; }
.slices legend { color: var(--soft); font-size: 0.88rem; padding: 0; }
.slices input { grid-row: 1; margin: 4px auto; width: 100%; max-width: 18px; cursor: pointer;
  accent-color: var(--accent); }
.slices img { grid-row: 2; grid-column: 1 / -1; visibility: hidden; max-width: 480px; }
.slices input:checked + img { visibility: visible; }
figcaption { padding: 10px 4px 2px; font-size: 0.92rem; overflow-wrap: anywhere; }
figcaption strong { display: block; }
.badge { display: inline-block; border-radius: 6px; padding: 0 8px; font-size: 0.85rem;
  background: var(--bar); color: var(--ink); overflow-wrap: anywhere; }
.badge.alarm { background: var(--warn-paper); border: 1px solid var(--warn); }
figcaption .badge { margin: 4px 0 0 8px; }
.warn { background: var(--warn-paper); color: var(--ink); border: 1px solid var(--warn);
  border-left-width: 4px; border-radius: 8px; padding: 8px 16px; margin: 18px 0 0; }
.warn ul, .panel ul { margin: 6px 0; padding-left: 20px; }
.warn li, .panel li { overflow-wrap: anywhere; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--accent); padding: 4px 0; }
pre { margin: 8px 0; font: 0.84rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 48px; color: var(--soft); font-size: 0.88rem; }
@media (max-width: 560px) {
  main { padding: 24px 14px; }
  .charts, .figures { grid-template-columns: 1fr; }
  .facts th { width: 9rem; }
}
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  .tile, .panel.chart-panel, figure, tr { break-inside: avoid; }
  .figures { grid-template-columns: 1fr 1fr; }
}
"""
