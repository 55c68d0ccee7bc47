"""The numbers of the methods: Butcher tableaus of explicit Runge–Kutta, and the orders of Adams–Bashforth.

Between the ends of a step the cubic through both values and slopes is of third order.  `dense` are the weights d of one
more term that makes it fourth order where there is one, with the stages k_i and θ in [0, 1] along the step,

    x(θ) = x_0 + θ²(3 − 2θ)(x_1 − x_0) + h θ(1 − θ)² k_0 − h θ²(1 − θ) k_end + h θ²(1 − θ)² Σ_i d_i k_i.

References: Bashforth and Adams 1883; Heun 1900; Kutta 1901; Dormand and Prince 1980; Shampine 1986; Bogacki and
Shampine 1989 and 1996; Hairer, Nørsett and Wanner 1993 (II.6); Tsitouras 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["METHODS", "Adams", "Tableau"]


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau: nodes c, rows a, weights b, and b − b̂ for the error estimate where there is one."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    error: tuple[float, ...] | None = None
    dense: tuple[float, ...] | None = None

    @property
    def fsal(self) -> bool:
        """The last stage is the first of the next step."""
        return self.a[-1] == self.b[:-1] and self.b[-1] == 0


@dataclass(frozen=True)
class Adams:
    """Adams–Bashforth: the polynomial through the last `order` velocities, integrated over the step.

    The first steps, which have no past yet, are taken by the Runge–Kutta method `start`, of the same order.
    """

    order: int
    start: str
    error: None = None
    fsal: bool = False


METHODS: dict[str, Tableau | Adams] = {
    "euler": Tableau(1, (0,), ((),), (1,)),
    "midpoint": Tableau(2, (0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    "heun": Tableau(2, (0, 1), ((), (1,)), (1 / 2, 1 / 2), (-1 / 2, 1 / 2)),
    "kutta3": Tableau(3, (0, 1 / 2, 1), ((), (1 / 2,), (-1, 2)), (1 / 6, 2 / 3, 1 / 6)),
    "rk4": Tableau(4, (0, 1 / 2, 1 / 2, 1), ((), (1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    "bosh3": Tableau(
        3,
        (0, 1 / 2, 3 / 4, 1),
        ((), (1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        (2 / 9, 1 / 3, 4 / 9, 0),
        (2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    ),
    "dopri5": Tableau(
        5,
        (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0),
        (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
        (
            -12715105075 / 11282082432,
            0,
            87487479700 / 32700410799,
            -10690763975 / 1880347072,
            701980252875 / 199316789632,
            -1453857185 / 822651844,
            69997945 / 29380423,
        ),
    ),
    "tsit5": Tableau(
        5,
        (0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1),
        (
            (),
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (
                5.86145544294642,
                -12.92096931784711,
                8.159367898576159,
                -0.071584973281401,
                -0.028269050394068383,
            ),
            (
                0.09646076681806523,
                0.01,
                0.4798896504144996,
                1.379008574103742,
                -3.290069515436081,
                2.324710524099774,
            ),
        ),
        (
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
            0,
        ),
        (
            -0.00178001105222577714,
            -0.0008164344596567469,
            0.007880878010261995,
            -0.1447110071732629,
            0.5823571654525552,
            -0.45808210592918697,
            0.015151515151515152,
        ),
        (
            -1.0530884977290216,
            0.1017,
            2.490627285651252793,
            -16.54810288924490272,
            47.37952196281928122,
            -34.87065786149660974,
            2.5,
        ),
    ),
    "bosh5": Tableau(
        5,
        (0, 1 / 6, 2 / 9, 3 / 7, 2 / 3, 3 / 4, 1, 1),
        (
            (),
            (1 / 6,),
            (2 / 27, 4 / 27),
            (183 / 1372, -162 / 343, 1053 / 1372),
            (68 / 297, -4 / 11, 42 / 143, 1960 / 3861),
            (597 / 22528, 81 / 352, 63099 / 585728, 58653 / 366080, 4617 / 20480),
            (
                174197 / 959244,
                -30942 / 79937,
                8152137 / 19744439,
                666106 / 1039181,
                -29421 / 29068,
                482048 / 414219,
            ),
            (587 / 8064, 0, 4440339 / 15491840, 24353 / 124800, 387 / 44800, 2152 / 5985, 7267 / 94080),
        ),
        (587 / 8064, 0, 4440339 / 15491840, 24353 / 124800, 387 / 44800, 2152 / 5985, 7267 / 94080, 0),
        (
            587 / 8064 - 2479 / 34992,
            0,
            4440339 / 15491840 - 123 / 416,
            24353 / 124800 - 612941 / 3411720,
            387 / 44800 - 43 / 1440,
            2152 / 5985 - 2272 / 6561,
            7267 / 94080 - 79937 / 1113912,
            -3293 / 556956,
        ),
        # The smallest weights that meet all order conditions up to four; the authors' own term needs more evaluations.
        (
            -1.4216589658507048,
            0,
            2.324898753707616,
            0.8385435273569374,
            -1.5167002206371443,
            -1.440786440288775,
            0.43496297855208244,
            0.7807403671599936,
        ),
    ),
    "ab2": Adams(2, "midpoint"),
    "ab3": Adams(3, "kutta3"),
    "ab4": Adams(4, "rk4"),
}
