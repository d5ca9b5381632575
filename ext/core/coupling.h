/* Coupling of two channels to a third, T[M] = sum C[m1][m2][M] a[m1] b[m2], and its adjoint, for numbers of the type
 * NUMBER (lanes or double), made of SCALARs; pointers are to m = -l, and numbers of three l's that are constants give
 * code without loops.
 *
 * With real harmonics cos and sin of m phi stand at m and -m. For m1, m2 > 0 the four products of a[+-m1], b[+-m2] form
 * two pairs that turn like cos and sin of mu phi, mu = m1 + m2 and |m1 - m2|; each pair goes to M = mu, -mu with one
 * coefficient, in this order where l1 + l2 + L is even, and as -sin and cos where it is odd. The coefficients stand in
 * the order of the loops below: m1, m2 from 0, sum before difference, those with mu > L left out.              */
#define UNROLL _Pragma("GCC unroll 9")

/* Adds the pair x cos, y sin of mu > 0, or the one of them that mu = 0 has. */
INLINE void NAME(couple_pair)(const int l, const int odd, const int mu, SCALAR c, NUMBER x, NUMBER y, NUMBER *t)
{
    t[l + mu] += c * (odd ? y : x);
    if (mu > 0 && odd)
        t[l - mu] -= c * x;
    else if (mu > 0)
        t[l - mu] += c * y;
}

INLINE void NAME(couple)(const int l1, const int l2, const int l, const double *c, const NUMBER *a, const NUMBER *b,
                         NUMBER *out)
{
    const int odd = (l1 + l2 + l) % 2;
    NUMBER t[4 * L_MAX + 1];
    a += l1;
    b += l2;
    for (int m = 0; m <= 2 * l; m++)
        t[m] = (NUMBER){0};
    UNROLL for (int m1 = 0; m1 <= l1; m1++)
    {
        UNROLL for (int m2 = 0; m2 <= l2; m2++)
        {
            const int sum = m1 + m2, difference = m1 > m2 ? m1 - m2 : m2 - m1;
            if (m1 == 0 || m2 == 0) {
                if (sum <= l && (!odd || sum > 0))
                    NAME(couple_pair)(l, odd, sum, (SCALAR)*c++, a[m1] * b[m2], m1 == 0 ? a[0] * b[-m2] : a[-m1] * b[0],
                                      t);
                continue;
            }
            const NUMBER cc = a[m1] * b[m2], ss = a[-m1] * b[-m2], cs = a[m1] * b[-m2], sc = a[-m1] * b[m2];
            if (sum <= l)
                NAME(couple_pair)(l, odd, sum, (SCALAR)*c++, cc - ss, sc + cs, t);
            if (difference <= l)
                NAME(couple_pair)(l, odd, difference, (SCALAR)*c++, cc + ss, m1 >= m2 ? sc - cs : cs - sc, t);
        }
    }
    for (int m = 0; m <= 2 * l; m++)
        out[m] = t[m];
}

/* Adds the adjoints of a and b, which may be the same, given that of T. */
INLINE void NAME(couple_reverse)(const int l1, const int l2, const int l, const double *c, const NUMBER *a,
                                 const NUMBER *b, const NUMBER *t, NUMBER *a_adjoint, NUMBER *b_adjoint)
{
    const int odd = (l1 + l2 + l) % 2, side = odd ? -1 : 1;
    NUMBER da[2 * L_MAX + 1], db[2 * L_MAX + 1];
    a += l1;
    b += l2;
    t += l;
    for (int m = 0; m <= 2 * l1; m++)
        da[m] = (NUMBER){0};
    for (int m = 0; m <= 2 * l2; m++)
        db[m] = (NUMBER){0};
    UNROLL for (int m1 = 0; m1 <= l1; m1++)
    {
        UNROLL for (int m2 = 0; m2 <= l2; m2++)
        {
            const int sum = m1 + m2, difference = m1 > m2 ? m1 - m2 : m2 - m1, mu = difference;
            NUMBER *const a1 = da + l1, *const b1 = db + l2;
            if (m1 == 0 || m2 == 0) {
                if (sum > l || (odd && sum == 0))
                    continue;
                const NUMBER y = (SCALAR)c[0] * t[-side * sum], ct = (SCALAR)*c++ * t[side * sum], x = odd ? -ct : ct;
                a1[m1] += x * b[m2];
                b1[m2] += x * a[m1];
                if (sum > 0) {
                    a1[-m1] += y * b[m1 == 0 ? -m2 : 0];
                    b1[-m2] += y * a[m1 == 0 ? 0 : -m1];
                }
                continue;
            }
            NUMBER cc = {0}, ss = {0}, cs = {0}, sc = {0};
            if (sum <= l) {
                const NUMBER y = (SCALAR)c[0] * t[-side * sum], ct = (SCALAR)*c++ * t[side * sum], x = odd ? -ct : ct;
                cc = x, ss = -x, cs = y, sc = y;
            }
            if (difference <= l) {
                if (mu > 0 || !odd) {
                    const NUMBER ct = (SCALAR)c[0] * t[side * mu], x = odd ? -ct : ct;
                    cc += x, ss += x;
                }
                if (mu > 0 || odd) {
                    const NUMBER ct = (SCALAR)c[0] * t[-side * mu], y = m1 >= m2 ? ct : -ct;
                    sc += y, cs -= y;
                }
                c++;
            }
            a1[m1] += cc * b[m2];
            a1[m1] += cs * b[-m2];
            a1[-m1] += ss * b[-m2];
            a1[-m1] += sc * b[m2];
            b1[m2] += cc * a[m1];
            b1[m2] += sc * a[-m1];
            b1[-m2] += ss * a[-m1];
            b1[-m2] += cs * a[m1];
        }
    }
    for (int m = 0; m <= 2 * l1; m++)
        a_adjoint[m] += da[m];
    for (int m = 0; m <= 2 * l2; m++)
        b_adjoint[m] += db[m];
}

#undef UNROLL
