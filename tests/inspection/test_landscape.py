"""Landscapes of losses."""

from thalweg.inspection.landscape import logistic_surfaces


def test_cross_entropy_leads_down_from_where_squared_error_is_flat():
    crossed, squared = (axis.lines[0].get_data_3d() for axis in logistic_surfaces().axes)
    assert squared[2][0] > 0.99  # nearly all is wrong there
    assert squared[2][-1] > 0.99  # and stays so
    assert crossed[2][-1] < 0.05 * crossed[2][0]
