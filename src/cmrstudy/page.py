"""The report's page as a Jinja template: no script, nothing from outside, for phones, desks,
printers and screen readers."""

STYLE = """
:root { --ink: #1d1d1f; --dim: #5c5c63; --page: #fff; --line: #d8d8dc; --head: #f4f4f6; --link: #0a58a8;
        --note: #fff4d6; --edge: #b07400; --box: #eef5fb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececee; --dim: #a5a5ad; --page: #17181a; --line: #3a3b40; --head: #232428; --link: #8cc4ff;
          --note: #3a2f12; --edge: #e0a63a; --box: #1b2a38 }
}
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: .5rem }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2 } h2 { font-size: 1.25rem; line-height: 1.3; margin-top: 2.5rem }
a { color: var(--link) }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
.box { margin: 1rem 0; padding: .2rem 1rem .6rem; background: var(--box); border-radius: .4rem }
.box h2 { margin: .6rem 0 } .box ul { margin: 0; padding-left: 1.1rem } .box dt { margin-top: .6rem } .box dd { margin: 0 }
nav ol { margin: 0; padding-left: 1.5rem } nav a { display: block; padding: .25rem 0 }
.sources { margin: -.6rem 0 1rem; padding: 0; list-style: none; color: var(--dim); font-size: .8rem }
.scroll { overflow-x: auto; margin: 1rem 0 }
details { margin: 1rem 0 } details .scroll { margin: .3rem 0 }
summary { cursor: pointer; font-weight: 600; padding: .3rem 0 } summary span { color: var(--dim); font-weight: 400 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
caption span { position: sticky; left: 0; display: inline-block; max-width: min(58rem, calc(100vw - 2rem)) }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
thead th { background: var(--head) } th:first-child, .text { text-align: left }
tbody th { position: sticky; left: 0; min-width: 5.5rem; max-width: 40vw; background: var(--page); font-weight: 400;
           white-space: normal }
td.words { white-space: normal; min-width: 12rem }
.facts td { white-space: pre-wrap; text-align: left; vertical-align: top; overflow-wrap: anywhere;
            font-family: ui-monospace, monospace }
.facts th { vertical-align: top; min-width: 7rem }
.note ul { margin: 0; padding-left: 1.1rem }
.note { margin: 1rem 0; padding: .6rem .9rem; background: var(--note); border-left: .3rem solid var(--edge) }
figure { margin: 1.5rem 0 } figcaption { color: var(--dim); font-size: .9rem }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem }
@media print {
  :root { --ink: #000; --dim: #444; --page: #fff; --line: #bbb; --head: #eee; --link: #000; --note: #fff; --edge: #777;
          --box: #fff; color-scheme: light }
  body { max-width: none; padding: 0; font-size: 10pt } nav { display: none } a { text-decoration: none }
  .box { border: 1px solid var(--line) }
  .scroll { overflow: visible } th, td { padding: .15rem .3rem; white-space: normal } tbody th { position: static; min-width: 0 }
  table { font-size: 8.5pt } table.wide { font-size: 6.5pt } table.huge { overflow-wrap: anywhere } td.words { min-width: 0 }
  details::details-content { content-visibility: visible; height: auto; display: block }
  figure, tr, .note { break-inside: avoid } h2, caption, summary { break-after: avoid } img { max-height: 22cm }
}
@supports selector(::details-content) {
  @media print { summary { display: none } }
}
@supports not selector(::details-content) {
  @media print { details:not([open]) > summary::after { content: " (open it in the browser before printing)" } }
}
"""

PAGE = """{% macro shown(table, heading) %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.caption or heading }}">
<table{% if table.columns | length > 8 %} class="wide{{ " huge" if table.columns | length > 14 }}"{% endif %}>
{% if table.caption %}<caption><span>{{ table.caption }}</span></caption>{% endif %}

<thead><tr>{% for name in table.columns %}<th scope="col"{% if table.text[loop.index0] %} class="text"{% endif %}>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}{% if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td{% if table.text[loop.index0] %} class="text{{ " words" if cell | length > 40 }}"{% endif %}>{{ cell }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
{% macro noted(sentences) %}
{% if sentences | length == 1 %}
<p class="note" role="note"><strong>Note:</strong> {{ sentences[0] }}</p>
{% elif sentences %}
<div class="note" role="note"><strong>Notes:</strong>
<ul>
{% for sentence in sentences %}
<li>{{ sentence }}</li>
{% endfor %}
</ul></div>
{% endif %}
{% endmacro %}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
{% if summary or answered %}
<section class="box" aria-labelledby="in-short">
<h2 id="in-short">In short</h2>
{% if summary %}
<ul>
{% for sentence in summary %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
{% endif %}
{% if answered %}
<dl>
{% for part in sections if part.section.answers %}
<dt><a href="#{{ part.anchor }}">{{ part.section.heading }}</a></dt>
{% for sentence in part.section.answers %}
<dd>{{ sentence }}</dd>
{% endfor %}
{% endfor %}
</dl>
{% endif %}
</section>
{% endif %}
<nav aria-label="Contents">
<ol>
{% for part in sections %}
<li><a href="#{{ part.anchor }}">{{ part.section.heading }}</a></li>
{% endfor %}
<li><a href="#facts">Where these numbers come from</a></li>
</ol>
</nav>
{% for part in sections %}
<section aria-labelledby="{{ part.anchor }}">
<h2 id="{{ part.anchor }}">{{ part.section.heading }}</h2>
{% if part.sources %}
<ul class="sources" aria-label="Sources">
{% for line in part.sources %}
<li>{{ line }}</li>
{% endfor %}
</ul>
{% endif %}
{{ noted(part.section.warnings) -}}
{% for paragraph in part.section.paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% for table in part.tables %}
{% if table.long %}
<details>
<summary>{{ table.caption or part.section.heading }} <span>({{ table.rows | length }} rows)</span></summary>
{{ shown(table, part.section.heading) -}}
</details>
{% else %}
{{ shown(table, part.section.heading) -}}
{% endif %}
{{ noted(table.notes) -}}
{% endfor %}
{% for name, source in part.figures %}
<figure><img src="{{ source }}" alt="{{ name }}"><figcaption>{{ name }}</figcaption></figure>
{% endfor %}
</section>
{% endfor %}
<section aria-labelledby="facts">
<h2 id="facts">Where these numbers come from</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Where these numbers come from"><table class="facts"><tbody>
{% for key, values in facts.items() %}
<tr><th scope="row">{{ key }}</th><td>{{ values | join("\\n") }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
</main>
</body>
</html>
"""
