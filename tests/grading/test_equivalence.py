"""Which answers are equal. Every rule has its wrong answers beside the right ones."""

import pytest

pytest.importorskip("math_verify")

from ktae.grading.equivalence import is_equivalent

# Pairs of a prediction and an accepted answer; a group of equal ones, and a group of different ones.
NUMBERS = (
    [
        ("18", "18.0"),
        ("1,234", "1234"),
        (r"1{,}234", "1234.0"),
        (r"32,\! 349", "32349"),
        (r"1\,000", "1 000"),
        ("$18", " $18$ \n"),
        ("18.", "18"),
        ("004", "4"),
        ("−3", "-3"),  # noqa: RUF001
        ("-0.0", "0"),
        (".5", r"\frac{1}{2}"),
        ("1 1/2", "3/2"),
        ("-1 1/2", "-1.5"),
        (r"137 \frac{1}{2}", "137.5"),
        (r"\frac{-1}{2}", r"-\frac12"),
        (r"0.\overline{3}", r"\frac13"),
        ("2,74", "2.74"),
        ("two", "2"),
        ("2(3)", "6"),
        (r"\sqrt{50}", r"5\sqrt2"),
        (r"\frac{10\sqrt{10.5}}{27}", r"\frac{5\sqrt{42}}{27}"),
        ("2^{10}", "1024"),
        ("5!", "120"),
        (r"\binom{5}{2}", "10"),
        (r"\log_2 8", "3"),
        (r"e^{i\pi}", "-1"),
        (r"\sin 30^\circ", "0.5"),
        # Rounded to six significant digits or more.
        ("0.333333", r"\frac13"),
        ("0.666666", "2/3"),
        ("3.14159", r"\pi"),
        (r"\sqrt{2}", "1.414214"),
    ],
    [
        ("1000001", "1000000"),
        ("2.0000001", "2.0000009"),
        ("0.5", "5"),
        ("1.2", "12"),
        ("1,234", "1.234"),
        ("1.5", "1,5"),
        ("1 1/2", "1"),
        ("1 2", "12"),
        ("1 2", "3"),
        ("12 34", "1234"),
        ("0.33", r"\frac13"),
        ("0.333334", r"\frac13"),
        ("0.15", "0.1500001"),
        ("3.1416", r"\pi"),
        ("3.14158", r"\pi"),
        ("1.57", r"\frac{\pi}{2}"),
        ("2^{1009}", "2^{1009}-1"),
        ("100!", "100!+1"),
        (r"2^{1009}+C", "2^{1009}"),
        (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
        ("0.0000000001", "0.0000000002"),
        ("0", "10^{-20}"),
        (r"\frac123", "1/23"),
        ("1", r"\text{none}"),
        (r"\sqrt{2}+10^{-9}", r"\sqrt{2}"),
    ],
)
SCIENTIFIC = (
    [
        ("6.43e16", r"6.43 \times 10^{16}"),
        (r"8.2\times 10^{-19}", r"0.82 \times 10^{-18}"),
        (r"1.0 \times 10^{-5}", "1e-5"),
        ("0.00001", r"10^{-5}"),
        (r"5 \cdot 10^3", "5000"),
        (r"6.4301 \times 10^{16}", r"6.43 \times 10^{16}"),  # the answer states three digits
        ("4.57e-24", "4.6e-24"),
        (r"2000\pi", r"6.28 \times 10^3"),
    ],
    [
        (r"8.2\times 10^{-19}", r"8.5\times 10^{-19}"),
        ("1.0e-5", "1e-6"),
        ("10^{-20}", "10^{-21}"),
        ("10^{3}", "10^{-3}"),
        ("6.4e16", "6.43e16"),
        ("6.44e16", "6.43e16"),
        ("5e-24", "4.6e-24"),
        ("1.4e-5", "1e-5"),  # one digit states nothing
        (r"x = 10^{-20}", r"x = 10^{-21}"),
        (r"\{10^{-20}, 1\}", r"\{10^{-21}, 1\}"),
    ],
)
UNITS = (
    [
        (r"10\text{ units}", "10"),
        (r"\frac{1}{3} \textbf{meters}", "1/3"),
        ("125 miles", r"125\textnormal{ miles}"),
        (r"15\text{ cm}^2", r"15\mbox{ cm}^2"),
        (r"100 \text{ cm}", r"1 \text{ m}"),
        (r"3 \text{ hours}", r"180 \text{ minutes}"),
        (r"36 \text{ km/h}", r"10 \text{ m/s}"),
        (r"5.4 \text{ cents}", r"\$0.054"),
        (r"\$5.00", "5"),
        ("5 €", "€5"),
        (r"90^\circ", "90"),
        (r"\frac{\pi}{2}", r"90^\circ"),
        (r"0.003 \text{ arcsec}", r"0.003^{\prime \prime}"),
        (r"12^{\text{th}}", "12"),
        ("12th", "12"),
        (r"7 \pmod{11}", "7"),
    ],
    [
        (r"5 \text{ cm}", r"5 \text{ m}"),
        (r"5\text{ cm}^2", r"5\text{ cm}^3"),
        (r"5\text{ MW}", r"5\text{ mW}"),
        ("$5", "5 cents"),
        (r"5 \text{ apples}", r"5 \text{ oranges}"),
        (r"5 \text{ million}", "5"),
        (r"5 \text{ or more}", "5"),
        (r"\text{at least } 5", "5"),
        (r"\frac{\pi}{3}", r"30^\circ"),
        (r"-5^\circ", r"5^\circ"),
        # Variables are no units.
        ("6m", "6"),
        ("3h", "3"),
        ("2km", "2"),
        ("2 t", "2"),
    ],
)
PERCENT = (
    [
        (r"50\%", "0.5"),
        (r"50\%", r"\frac12"),
        (r"\frac{3}{4}", r"75\%"),
        ("28", r"28\%"),
        ("28 pct", "28 percent"),
        (r"10\%", "10"),  # more than 1 is no share
        (r"33\frac{1}{3}\%", r"\frac13"),
    ],
    [
        (r"50\%", r"\frac13"),
        (r"0.5\%", "0.5"),
        (r"1\%", "1"),
        ("5", r"50\%"),
        (r"2.8\%", r"28\%"),
        (r"5\%", r"5\text{ cm}"),
    ],
)
NAMES = (
    [
        ("x = 5", "5"),
        ("11", r"x \approx 11"),
        ("1", "|AB|=1"),
        (r"\frac{1}{\sqrt6}", r"\frac{NO}{BO}=\frac{1}{\sqrt{6}}"),
        ("7:32", "S_{MBCN}:S=7:32"),
        (r"6 \cdot 7 = 42", "42"),
        (r"x = \sqrt2 \approx 1.41", r"\sqrt2"),
        (r"x = \sqrt2 \approx 1.414214", "1.414214"),
        ("f(m)=2m+1007", "f(n) = 2n+1007"),
        ("f(x)=x", "f(z)=z"),
        ("y=2x+3", "f(x)=2x+3"),
        ("x_1 = 2", "x=2"),
        (r"E_0 = \hbar\omega", r"\hbar \omega"),
        ("34x+45y=1", "-34x-45y+1=0"),
        ("y=-\\frac12x+\\frac34", "2x+4y-3=0"),
        (r"-x \ge -1", r"x \le 1"),
        ("3 > x", "x<3"),
        ("x != 3", r"x \neq 3"),
        ("f(2)<f(1)<f(4)", "f(4) > f(1) > f(2)"),
    ],
    [
        ("2x=6", "6"),
        ("2x=6", "x=3"),
        ("x^2=4", "4"),
        ("0", "a^2+b=0"),
        ("11a+c", "7=11a+c"),
        ("x=5", "y=5"),
        ("x_1=5", "x_2=5"),
        ("f(m)=2n", "f(n)=2n"),
        ("f(1)=2", "f(2)=1"),
        ("5!=120", "5"),
        (r"3 \approx 4", "4"),
        ("x(x-1)=0", "x-1=0"),
        ("x < 5", "x > 5"),
        ("x > 2", r"x \ge 2"),
        ("2x>4", "x<2"),
        ("12:30", "6:15"),
        ("2:3", "3:2"),
        ("-SRAC=LRAC", "SRAC=LRAC"),
    ],
)
LISTS = (
    [
        ("2, 1", "1,2"),
        (r"\{2, 1\}", "1 and 2"),
        ("-12, -11", "-12;-11"),
        (r"(11,7) \text{ or } (7,11)", "(7,11),(11,7)"),
        ("(1,2), (3,4), (1,2)", "(3,4),(1,2)"),
        ("{1,3}", "(1,3)"),
        ("(1000, 10)", "10^{3},10"),
        ("(p,q)=(3,2)", "(3,2)"),
        ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
        (r"(x, y) = (5, 8) \quad \text{and} \quad (8, 5)", "(5,8),(8,5)"),
        (r"a_{37}=19, \quad a_3=2", "a_3=2, a_{37}=19"),
        ("a=-2,b=-2", "-2,-2"),
        ("W(x)=1orW(x)=-1", r"W(n) = 1 \text{ and } W(n) = -1"),
        (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
        (r"\{-2, 1-\sqrt5, 1+\sqrt5\}", r"\{1\pm\sqrt{5},-2\}"),
        (r"x=\frac{\pi}{6}+n\pi, x=\frac{\pi}{3}+n\pi", r"x=\frac{1}{6}\pi+\pi k, \frac{1}{3}\pi+\pi k"),
        (r"\langle 1,2,3 \rangle", "[1,2,3]"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
    ],
    [
        ("-2", "-2,-2"),
        ("-2,-2", "-2"),
        ("1,1,2", "1,2"),
        ("5", "5,6"),
        (r"5 \text{ or } 6", "5"),
        ("(1,2)", "(2,1)"),
        ("{3,1}", "(1,3)"),
        (r"\{1,2\}", r"\{1,2,3\}"),
        (r"\{1,2\}", "(1,2)"),
        ("x=1,y=5", "5,1"),
        ("x=2,y=1", "x=1,y=2"),
        ("32, 349", "32349"),
        ("SRAC = LRAC and SRMC = LRMC", "SRAC=LRAC"),
        (r"\frac{\pi}{6}+2\pi n, 1", r"\frac{\pi}{6}+\pi n, 1"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "2"),
    ],
)
INTERVALS = (
    [
        (r"[-1, \tfrac12)", r"[-1,\frac{1}{2})"),
        ("(-\\infty,1]", r"x \le 1"),
        (r"x \in [-2,7]", r"-2 \\le x \\le 7"),
        (r"x<1 \text{ or } x>2", r"(-\infty,1)\cup(2,\infty)"),
        (r"x>0 \text{ and } x<1", "(0,1)"),
        (r"(2,3) \cup [0,1]", r"[0,1]\cup(2,3)"),
        (r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)"),
        (r"[2,\infty]", r"[2,\infty)"),
    ],
    [
        ("[0,1)", "(0,1]"),
        ("[0,1]", "[0,1)"),
        ("(1,0]", "[0,1)"),
        ("0,1", "[0,1)"),
        ("(1,2)", r"1 \le x < 2"),
        ("x<1", r"x<1 \text{ or } x>2"),
        (r"x>0 \text{ or } x<1", "(0,1)"),
        (r"(0,1)\cup(2,3)", r"(0,1)\cup(2,3]"),
    ],
)
FORMULAS = (
    [
        ("x+1", "1+x"),
        (r"\frac{\cos(2t)}{15}", "\\frac{1}{15} \\cos(2t)\n"),
        (r"\cosh(at)", r"\frac{1}{2}(e^{at} + e^{-at})"),
        (
            r"\frac{1}{2-\omega^2+\frac14 i\omega}",
            r"\frac{2-\omega^2-\frac{\omega i}{4}}{\omega^4-\frac{63}{16}\omega^2+4}",
        ),
        (r"\lceil n/2\rceil", r"n-\lfloor n/2\rfloor"),
        (r"2r_0\sqrt{\pi\rho_0}", r"\sqrt{4\pi\rho_0 r_0^2}"),
        ("0.1x", r"\frac{x}{10}"),
        (r"\frac{1}{2}x^2 + C", r"\frac{x^2}{2}+c"),
        (r"x(t) = I_0 e^{-t}", "I(0)e^{-t}"),
        (r"\frac{dM_{\text{core}}}{dt} = 2M_{\text{core}}", r"\frac{dM}{dt} = 2M"),
        (
            r"LC \frac{d^2 v_o}{dt^2} + v_o(t) = v_i(t)",
            r"\frac{d^{2} v_{o}}{d t^{2}}+\frac{v_{o}}{L C}=\frac{v_{i}}{L C}",
        ),
        (r"\dot{x} - kx = -a", r"\frac{dx}{dt} = kx - a"),
        (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
        (r"\\frac{1}{2} + x", r"\tfrac12+x"),
        ("gibberish {", "gibberish {"),
    ],
    [
        ("x+1", "x-1"),
        ("x^2", "x^2+C"),
        (r"\frac{x}{y}", r"\frac{y}{x}"),
        ("3R^2", "3r^2"),
        ("2^K", "2^k"),
        ("|x|", "x"),
        (r"\lfloor n/2\rfloor", r"\lfloor\sqrt{n-1}\rfloor"),
        (r"\ln x", r"\log x"),
        ("C_1", "C_2"),
        ("x'", "x"),
        (r"\frac{dM}{dt}", "0"),
        (r"\dot{x}+x=\cos(t)", r"\dot{x}+x=\sin(t)"),
        (r"m\ddot{x}+kx=0", r"m\dot{x}+kx=0"),
        ("foo 5", "5"),
        ("3 or rather {5", "5"),
        (r"\sum_{k=1}^{100} \lfloor \sqrt{k} \rfloor", "21"),
        ("", "1"),
        ("", ""),
    ],
)
TEXTS = (
    [
        ("Evelyn", r"\text{evelyn}"),
        (r"\text{No solution}", "no  solution."),
        (r"\text{(A)}", "A"),
        ("(C) 12", "C"),
        (r"\text{13}", "13"),
        ("52", "52_8"),
        ("52_{8}", "52_8"),
    ],
    [
        ("east", "seat"),
        ("even", "odd"),
        (r"-\text{even}", r"\text{even}"),
        (r"\text{(A)}", r"\text{(B)}"),
        (r"\text{E}", "d"),
        ("(C) 12", "D"),
        ("52_8", "52_9"),
        ("52_8", "52"),
        ("42", "52_8"),
    ],
)
LEFT_OVER = (
    r"\text{ or maybe 13} ; \text{ and 13} ; \text{, 13} ; \text{ + 13} ; \text{ divided by 2} ; \text{ doesn't work} ; "
    r"\text{ or fewer} ; \text{ dozens} ; \text{ lakh} ; \text{ tenths} ; \text{ squared} ; \text{ wrong answers} ; "
    r" \models 13 ; \neg ; \ldots ; ! ; ? ; ' ; ^ ; } ; \overline{6} ; _{3} ; \approx 14 ; = 13 ; : 13 ; / 13 ; | 13 ; "
    r"\& 13 ; \text{ in base }6"
)
# What a prediction has beside its answer: looks, which mean nothing, and words and signs, which do.
REST = (
    [
        (r"5\hspace{1cm}", "5"),
        (r"{\left. 5 \right.}", "5"),
        (r"\textcolor{red}{\mathbf{5}}\ \blacksquare", "5"),
        (r"3\text{ a. m.}", "3 am"),
        (r"7\text{ (mod 11)}", r"7 \pmod{11}"),
        (r"p \wedge q", r"p \land q"),
        ("3 +- 2", r"3 \pm 2"),
        ("2theta", r"2\theta"),
        (r"\left(\begin{smallmatrix}1\\2\end{smallmatrix}\right)", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ("5厘米", r"5\text{ cm}"),
        (r"\text{thirty-two}", "32"),
        ("1 ft 6 in", "18 inches"),
        (r"2\pi k, k \in \mathbb{Z}", r"2\pi n"),
        ("5 (five)", "5"),
    ],
    [(f"12{rest}", "12") for rest in LEFT_OVER.split(" ; ")]
    + [
        (r"\{\emptyset\}", r"\emptyset"),
        (r"\{1\},\{2\}", r"\{1,2\}"),
        ("P(B)=0.5", "P(A)=0.5"),
        (r"p\lor q", r"p\land q"),
        (r"x>1\text{ or }x<5", r"x>1\text{ and }x<5"),
        (r"\text{FT}", r"\text{TF}"),
        ("on", "no"),
        ("ABC", "abc"),
        ("x=2=3", "3"),
        ("5 (six)", "5"),
        (r"2\pi k, k \in \mathbb{Z}", r"\pi n"),
    ],
)
GROUPS = (REST, NUMBERS, SCIENTIFIC, UNITS, PERCENT, NAMES, LISTS, INTERVALS, FORMULAS, TEXTS)


@pytest.mark.parametrize(("prediction", "answer"), [pair for equal, _ in GROUPS for pair in equal])
def test_equivalent(prediction, answer):
    assert is_equivalent(prediction, answer) is True


@pytest.mark.parametrize(("prediction", "answer"), [pair for _, different in GROUPS for pair in different])
def test_not_equivalent(prediction, answer):
    assert is_equivalent(prediction, answer) is False
