%% Makes the relup that leads from the running release to another, and says whether it restarts the emulator. A way back is
%% written as one forth into the folder of the release that it leads to: release_handler looks there first, and a look whether it
%% could be installed is only one where there is a relup.
%% Given: Down, From, FromRel, Libs, Out, To, ToRel.
Words = fun(Module, Error) ->
    try unicode:characters_to_binary(io_lib:format("~ts", [Module:format_error(Error)]))
    catch _:_ -> unicode:characters_to_binary(io_lib:format("~tp", [Error]))
    end
end,
File = filename:join(Out, "relup"),
_ = file:delete(File),
Options = [silent, {path, [Libs]}, {outdir, Out}],
Made = try
    case Down of
        false -> systools:make_relup(ToRel, [FromRel], [], Options);
        true -> systools:make_relup(FromRel, [], [ToRel], Options)
    end
catch
    error:undef -> erlang:error(undef);
    _:Raised -> {raised, Raised}
end,
Made1 = case Made of ok -> {ok, none, none, []}; _ -> Made end,
case Made1 of
    {ok, _, _, _} ->
        case file:consult(File) of
            {ok, [{_, Ups, Downs}]} ->
                {Entries, Wanted} = case Down of false -> {Ups, From}; true -> {Downs, To} end,
                case lists:keyfind(Wanted, 1, Entries) of
                    {_, Descr, Script} ->
                        Restarts = lists:member(restart_new_emulator, Script) orelse lists:member(restart_emulator, Script),
                        case {Restarts, Down} of
                            {true, _} -> _ = file:delete(File), restarts;
                            {false, false} -> ok;
                            {false, true} ->
                                Turned = {To, [{From, Descr, Script}], []},
                                case file:write_file(File, unicode:characters_to_binary(io_lib:format("%% coding: utf-8~n~tp.~n", [Turned]))) of
                                    ok -> ok;
                                    {error, Failed} -> {not_written, Failed}
                                end
                        end;
                    false -> without
                end;
            {error, Unread} when is_atom(Unread) -> {not_written, Unread};
            _ -> {not_written, unreadable}
        end;
    {error, Module, Error} -> {error, Words(Module, Error)};
    {raised, Why} -> {error, unicode:characters_to_binary(io_lib:format("~tP", [Why, 20]))};
    error -> {error, <<"systools says no more">>}
end.
