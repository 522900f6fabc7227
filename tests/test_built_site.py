"""What the check of the built site finds, on small sites whose faults are known."""

import built_site
import pytest

GOOD = """<html><head><link rel="stylesheet" href="s.css"></head><body>
<h1 id="top">A page</h1><p>Set: <span class="math notranslate">\\(x\\)</span>,
<code>\\kappa</code>, a path C:\\a and 5$.</p>
<a href="b.html#there">b</a> <a href="#top">up</a> <a href="https://example.org/x">elsewhere</a>
<img src="data:image/png;base64,AAAA">
<div class="highlight-python notranslate"><div class="highlight"><pre><span></span>one
<span class="hll">two &lt; 3
</span>three
</pre></div></div></body></html>"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "s.css").touch()
    (tmp_path / "b.html").write_text('<body><section id="there">text</section></body>')
    (tmp_path / "a.html").write_text(GOOD)
    return tmp_path


def add(site, text):
    (site / "a.html").write_text(GOOD.replace("</body>", f"{text}</body>"))
    return list(built_site.faults(site))


def test_a_good_site_has_no_fault(site):
    assert list(built_site.faults(site)) == []
    assert built_site.main([str(site)]) == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('<a href="c.html">c</a>', "the link c.html leads nowhere"),
        ('<a href="sub/b.html">c</a>', "the link sub/b.html leads nowhere"),
        ('<a href="b.html#elsewhere">b</a>', "b.html#elsewhere names no place"),
        ('<a href="#elsewhere">b</a>', "#elsewhere names no place"),
        ('<img src="p.png">', "p.png is not there"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads //example.org/x.css"),
        ("<p>of \\(x\\)</p>", "a formula is not set"),
        ("<p>of $$x$$</p>", "a formula is not set"),
        ("<td>of \\kappa</td>", "a formula is not set"),
    ],
)
def test_a_fault_is_found(site, text, fault):
    (found,) = add(site, text)
    assert found.startswith("a.html: ")
    assert fault in found
    assert built_site.main([str(site)]) == 1


def test_code_is_read_as_it_is_copied(site):
    (block,) = built_site.Page(site / "a.html").blocks
    assert block.language == "python"
    assert block.text == "one\ntwo < 3\nthree\n"
    assert block.marked == ["two < 3\n"]


def test_nothing_to_check_is_no_success():
    assert built_site.main([]) == 1
