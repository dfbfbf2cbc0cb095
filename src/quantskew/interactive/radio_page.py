"""Panels of a page of which one is shown, chosen by radio buttons: no kernel, no JavaScript, no network."""

from html import escape

from quantskew.base.files import digest

# Colours are the theme's where there is one, so that they follow its dark mode.
LOOK = """
.bit-width { border: 1px solid var(--pst-color-border, #888); border-radius: .4rem; margin: 0 0 1rem;
  min-width: 0; padding: .4rem .6rem; position: relative; }
.bit-width legend { float: none; font-size: 1rem; font-weight: 600; margin: 0; padding: 0 .3rem;
  width: auto; }
.bit-width > input { height: 1px; margin: 0; opacity: 0; position: absolute; width: 1px; }
.bit-width > label { border: 1px solid var(--pst-color-text-muted, #666); border-radius: .3rem;
  cursor: pointer; display: inline-block; line-height: 1.4; margin: 0 .3rem .4rem 0; padding: .25rem .6rem; }
.bit-width > input:checked + label { background: var(--pst-color-text-base, #222);
  color: var(--pst-color-background, #fff); text-decoration: underline; }
.bit-width > input:focus-visible + label { outline: 3px solid var(--pst-color-primary, #459db9);
  outline-offset: 2px; }
.bit-width-panels > * { display: none; }
.bit-width-panel { display: flex; flex-wrap: wrap; gap: .6rem 1rem; }
.bit-width-panel > * { flex: 1 1 16rem; margin: 0; min-width: 0; }
.bit-width-panel img { background: #fff; height: auto; max-width: 100%; }
.bit-width-panel figure > :is(figcaption, details) { font-size: .85rem; }
.bit-width-panel figure > figcaption { color: inherit; font-family: inherit; font-weight: inherit;
  margin: .2rem 0; text-align: left; }
.bit-width-panel td { white-space: nowrap; }
.bit-width-panel details { overflow-x: auto; }
"""


def control(title, panels, chosen):
    """Radio buttons over panels, as HTML that needs nothing beside itself.

    Where the page has ``bit-width.js`` all controls of a page and of the next one follow the last choice.

    Parameters
    ----------
    title : str
    panels : dict of str to str
        HTML by the name of its radio button.
    chosen : str
        The panel that is shown first.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such panel.

    Examples
    --------
    >>> html = control("Accuracy", {"fp32": "<p>0.9</p>", "int2": "<p>0.1</p>"}, chosen="int2")
    >>> html.count('type="radio"'), html.count("checked>")
    (2, 1)
    """
    if chosen not in panels:
        raise ValueError(f"there is no panel {chosen!r}; there are {', '.join(panels)}")
    # Named by content: the same on every build, and different for two controls of a page.
    name = f"bit-width-{digest([title, panels])[:8]}"
    buttons, rules, shown = [], [], []
    for place, (value, panel) in enumerate(panels.items()):
        mark = " checked" if value == chosen else ""
        button = f"{name}-{place}"
        buttons.append(
            f'<input type="radio" name="{name}" id="{button}" value="{escape(value)}"{mark}>'
            f'<label for="{button}">{escape(value)}</label>'
        )
        rules.append(f"#{button}:checked ~ .bit-width-panels > :nth-child({place + 1})")
        shown.append(f"<div>{panel}</div>")
    rules = f"{', '.join(rules)} {{ display: block; }}\n"
    return (
        f'<style>{LOOK}{rules}</style><fieldset class="bit-width"><legend>{escape(title)}</legend>'
        f'{"".join(buttons)}<div class="bit-width-panels">{"".join(shown)}</div></fieldset>'
    )
