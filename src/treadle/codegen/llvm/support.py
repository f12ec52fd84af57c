"""Small functions that generated code calls, in LLVM text."""

INTEGER_POWER = """\
define internal i64 @treadle.ipow(i64 %base, i64 %exponent) nounwind {
entry:
  %negative = icmp slt i64 %exponent, 0
  br i1 %negative, label %inverse, label %loop
loop:
  %power = phi i64 [ 1, %entry ], [ %power.next, %loop ]
  %square = phi i64 [ %base, %entry ], [ %square.next, %loop ]
  %left = phi i64 [ %exponent, %entry ], [ %left.next, %loop ]
  %bit = trunc i64 %left to i1
  %factor = select i1 %bit, i64 %square, i64 1
  %power.next = mul i64 %power, %factor
  %square.next = mul i64 %square, %square
  %left.next = lshr i64 %left, 1
  %more = icmp ne i64 %left.next, 0
  br i1 %more, label %loop, label %exit
exit:
  ret i64 %power.next
inverse:
  %up = add i64 %base, 1
  %is.unit = icmp ult i64 %up, 3
  %odd.bits = and i64 %exponent, 1
  %odd = icmp ne i64 %odd.bits, 0
  %one.or.base = select i1 %odd, i64 %base, i64 1
  %is.zero = icmp eq i64 %base, 0
  %unit = select i1 %is.zero, i64 0, i64 %one.or.base
  %result = select i1 %is.unit, i64 %unit, i64 0
  ret i64 %result
}"""
